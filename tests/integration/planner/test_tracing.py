"""One trace from reading the metrics to the acknowledgement of what was decided, on a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent.adapters.bus_channel import NodeChannel
from bus_schemas import v1
from bus_schemas.client import VirtualConnectorClient
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import StoredMessage, all_messages
from planner.runtime.telemetry.tracing import Tracing
from tests.contract.bus import until
from tests.doubles.fleet import Fleet
from tests.integration.planner.stage import PREFILL, Stage, ended, staged


class FleetOnTheBus(Fleet):
    """Takes decisions as agents and connectors do: the agents' own channel, and the orchestrators' client."""

    async def _caps(self) -> None:
        async def carry_out(decision: v1.PowerDecision) -> v1.PowerAck:
            self.power.append(decision)
            return self.apply_caps(decision)

        async with asyncio.TaskGroup() as tasks:
            for node in self.gpus:
                tasks.create_task(NodeChannel(self.bus, node, "boot/one").listen(carry_out))

    async def _scale(self) -> None:
        client = VirtualConnectorClient(self.bus.nc, self.deployment)
        async for decision in client.decisions():
            self.scaling.append(decision)
            for pool, target in decision.pools.items():
                self.place(pool, target.replicas)
            await client.complete(decision)


def trace_id(traceparent: str | None) -> str:
    """The trace of a message; empty without one."""
    return traceparent.split("-")[1] if traceparent else ""


async def decisions_and_acks(bus: Bus, kind: str) -> tuple[list[StoredMessage], list[StoredMessage]]:
    """All decisions and acknowledgements of ``kind`` that the streams hold."""
    decisions = await all_messages(bus, bus.subjects.all_of("decision", kind))
    return decisions, await all_messages(bus, bus.subjects.all_of("ack", kind))


def whole_traces(spans: tuple[ReadableSpan, ...], kind: str) -> set[str]:
    """Traces that hold the reading, the tick, the computation and the acknowledgement of decisions of ``kind``."""
    wanted = {"scrape", "tick", "decide", f"carry out {kind}"}
    by_trace: dict[str, set[str]] = {}
    for span in spans:
        by_trace.setdefault(f"{span.context.trace_id:032x}", set()).add(span.name)
    return {trace for trace, names in by_trace.items() if names >= wanted}


async def traced(stage: Stage, exporter: InMemorySpanExporter) -> None:
    """Run a traced planner until both kinds of decisions were carried out in whole traces."""
    traces = Tracing(exporter)
    bus = await stage.another_bus()
    service = stage.service(bus, "traced", trace=traces.begin)
    service.watch(traces.watch)
    task = asyncio.create_task(service.run())
    try:
        stage.load_rps = 20.0
        await until(lambda: len(stage.fleet.workers[PREFILL]) > 1, "a scale-up")

        def complete() -> bool:
            # The span processor exports in batches: send what has ended.
            assert traces._provider is not None
            traces._provider.force_flush()
            return all(whole_traces(exporter.get_finished_spans(), kind) for kind in ("scaling", "power"))

        await until(complete, "a whole trace of each kind")
    finally:
        await ended(task)
        await bus.close()
        await asyncio.to_thread(traces.close)


async def test_reading_decision_cap_and_acknowledgement_are_one_trace(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    async with staged(tmp_path, fleet_type=FleetOnTheBus) as stage:
        await traced(stage, exporter)
        for kind in ("scaling", "power"):
            decisions, acks = await decisions_and_acks(stage.bus, kind)
            sent = {trace_id(stored.traceparent) for stored in decisions}
            answered = {trace_id(stored.traceparent) for stored in acks}
            assert "" not in sent
            assert answered
            assert answered <= sent
            assert whole_traces(exporter.get_finished_spans(), kind) & answered
    spans_lie_within_their_ticks(exporter.get_finished_spans())


def spans_lie_within_their_ticks(spans: tuple[ReadableSpan, ...]) -> None:
    """A tick's span begins with the reading and holds the reading and the computation."""
    ticks = {span.context.span_id: span for span in spans if span.name == "tick"}
    assert all(tick.parent is None for tick in ticks.values())
    for name in ("scrape", "decide"):
        parts = [span for span in spans if span.name == name]
        assert parts
        for part in parts:
            assert part.parent is not None
            tick = ticks[part.parent.span_id]
            assert (tick.start_time or 0) <= (part.start_time or 0) <= (part.end_time or 0) <= (tick.end_time or 0)
            assert name != "scrape" or part.start_time == tick.start_time
