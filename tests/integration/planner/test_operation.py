"""Operating a planner: probes, metrics under both vocabularies, status, logs, traces."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import unopened
from bus_schemas.streams import DECISIONS, stream_specs
from deploy.compose.planner_service import Planner
from planner.runtime.config.settings import Settings
from planner.runtime.telemetry import planner_metrics
from planner.runtime.telemetry.decision_log import DecisionLog
from planner.runtime.telemetry.health import HealthServer
from planner.runtime.telemetry.instruments import Instruments
from planner.runtime.telemetry.liveness import Liveness
from planner.runtime.telemetry.logs import JsonFormatter
from planner.runtime.telemetry.tracing import Tracing
from tests.command_line import wattscale
from tests.contract.bus import bench, until
from tests.doubles.engine_metrics import EngineMetrics, MetricsServer
from tests.doubles.fleet import Fleet
from tests.integration.planner.stage import MODEL, NAME, PREFILL, Stage, config, running, staged


async def fetch(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_probes_metrics_and_status_of_a_leading_planner(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "planner.decisions")
    async with staged(tmp_path) as stage, running(stage) as service:
        instruments = Instruments(stage.config, service.vitals, {NAME: MODEL})
        health = HealthServer(
            service.vitals,
            lambda: stage.bus.connected,
            instruments.page,
            host="127.0.0.1",
            port=0,
            interval_s=stage.config.interval_s,
            live_within_s=60.0,
            clock=time.time,
        )
        for watcher in (instruments.watch, health.watch, DecisionLog().watch):
            service.watch(watcher)
        serving = asyncio.create_task(health.run())
        try:
            stage.load_rps = 20.0
            await until(lambda: len(stage.fleet.workers[PREFILL]) > 1 and bool(health.url), "a scale-up")
            await until(lambda: service.vitals.ticks >= 4, "more ticks")
            assert await fetch(f"{health.url}/livez") == (200, "ok\n")
            assert await fetch(f"{health.url}/readyz") == (200, "ok\n")
            status = json.loads((await fetch(f"{health.url}/status"))[1])
            assert status["leading"] is True
            assert status["deployments"][NAME]["pools"][PREFILL]["chain"]
            page = (await fetch(f"{health.url}/metrics"))[1]
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            instruments.close()
    exported = {line.split("{")[0].split(" ")[0] for line in page.splitlines() if not line.startswith("#")}
    known = {metric.name for metric in (*planner_metrics.OURS, *planner_metrics.DYNAMO.values())}
    stems = {name.removesuffix(part) for name in exported for part in ("_bucket", "_sum", "_count", "")}
    # What depends on a budget cut, a missing reading or a correction need not be there in a quiet run.
    may_lack = {planner_metrics.SITE_FROZEN.name, planner_metrics.MISSING.name, planner_metrics.CORRECTION.name}
    may_lack.add(planner_metrics.SHED_SHARE.name)  # only while a gateway should shed
    may_lack.add(planner_metrics.PROBLEM.name)
    # Only where a deployment promises a share of good requests.
    promised = ("SLO_SHARE", "QUANTILE", "BURN_RATE", "BUDGET_LEFT", "JUDGED", "LATE")
    may_lack |= {getattr(planner_metrics, name).name for name in promised}
    may_lack.add("dynamo_planner_estimated_ttft_ms")  # none is expected of a pool that cannot keep up
    assert known - stems - may_lack == set()
    assert {name for name in exported if name.startswith(("wattscale_", "dynamo_planner_"))} <= {
        name + suffix for name in known for suffix in ("", "_bucket", "_sum", "_count")
    }
    assert f'dynamo_planner_num_prefill_replicas{{dynamo_namespace="{NAME}",model_name="{MODEL}"}}' in page
    assert any(record.getMessage().startswith("scaling to prefill=") for record in caplog.records)
    assert all(record.__dict__["deployment"] == NAME for record in caplog.records if "granted" in record.__dict__)


async def test_a_stuck_loop_is_not_live() -> None:
    vitals = Liveness()
    health = HealthServer(
        vitals,
        lambda: False,
        lambda: b"",
        host="127.0.0.1",
        port=0,
        interval_s=1.0,
        live_within_s=0.05,
        clock=lambda: 100.0,
    )
    serving = asyncio.create_task(health.run())
    try:
        await until(lambda: bool(health.url), "the server")
        await asyncio.sleep(0.1)  # no beat: exactly what is tested
        code, said = await fetch(f"{health.url}/livez")
        assert code == 503
        assert "the planner's loop has not run" in said
        vitals.leading(7, 10.0)
        _, said = await fetch(f"{health.url}/readyz")
        assert "leading without a tick for 90.0 s" in said
        assert "no connection to the bus" in said
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_a_planner_is_not_ready_before_its_dashboard_can_be_reached() -> None:
    settings = Settings.model_validate({"deployments": {}, "health": {"port": 0}, "dashboard": {"port": 0}})
    planner = Planner(settings, config(), unopened(settings.bus))
    assert planner.health is not None
    assert planner.dashboard is not None
    serving = asyncio.create_task(planner.health.run())
    try:
        await until(lambda: bool(planner.health and planner.health.url), "the health server")
        assert "not served yet: the dashboard" in (await fetch(f"{planner.health.url}/readyz"))[1]
        assert "dashboard" not in (await fetch(f"{planner.health.url}/livez"))[1]
        planner.dashboard.serving.set()
        assert "dashboard" not in (await fetch(f"{planner.health.url}/readyz"))[1]
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_a_planner_is_not_ready_while_its_bus_could_forget_decisions(tmp_path: Path) -> None:
    # Without the loops of a whole stage: one of them puts the streams in order.
    async with bench(tmp_path / "nats") as (server, bus), MetricsServer(EngineMetrics()) as metrics:
        stage = Stage(server, bus, Fleet(bus, NAME), metrics, config())
        decisions = stream_admin.stream_config(stream_specs(stage.bus.subjects)[0])
        assert decisions.name == DECISIONS
        await stage.bus.js.update_stream(decisions, max_age=7 * 86400)
        async with running(stage) as service:
            health = HealthServer(
                service.vitals,
                lambda: stage.bus.connected,
                lambda: b"",
                host="127.0.0.1",
                port=0,
                interval_s=0.5,
                live_within_s=10.0,
                clock=lambda: 100.0,
            )
            serving = asyncio.create_task(health.run())
            try:
                await until(lambda: bool(service.vitals.unfit) and bool(health.url), "the planner to refuse to lead")
                code, text = await fetch(f"{health.url}/readyz")
                assert code == 503
                assert "max_age 604800 s" in text
                assert "wattscale streams apply" in text
                assert (await fetch(f"{health.url}/livez"))[0] == 200
                assert not stage.fleet.power
                await stream_admin.apply(stage.bus)
                await until(lambda: not service.vitals.unfit, "the planner to lead over the mended stream")
                assert "max_age" not in (await fetch(f"{health.url}/readyz"))[1]
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)


async def test_one_byte_on_the_lease_is_named_and_healed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with bench(tmp_path / "nats") as (server, bus), MetricsServer(EngineMetrics()) as metrics:
        stage = Stage(server, bus, Fleet(bus, NAME), metrics, config())
        await bus.js.publish(bus.subjects.lease(), b"x")
        async with running(stage, lease_ttl_s=4.0) as service:
            instruments = Instruments(stage.config, service.vitals)
            health = HealthServer(
                service.vitals,
                lambda: stage.bus.connected,
                instruments.page,
                host="127.0.0.1",
                port=0,
                interval_s=0.5,
                live_within_s=10.0,
                clock=time.time,
            )
            serving = asyncio.create_task(health.run())
            try:
                await until(lambda: bool(service.vitals.hindrance) and bool(health.url), "the reason")
                code, text = await fetch(f"{health.url}/readyz")
                assert code == 503
                assert text.startswith("not leading: message 1 on the lease's subject is unreadable")
                assert "wattscale_planner_hindered 1.0" in (await fetch(f"{health.url}/metrics"))[1]
                assert "is unreadable" in json.loads((await fetch(f"{health.url}/status"))[1])["problems"][0]
                assert (await fetch(f"{health.url}/livez"))[0] == 200
                done = await wattscale("status", "--nats-url", server.url)
                assert "no planner leads: message 1 on the lease's subject is unreadable" in done.out
                await until(lambda: service.vitals.epoch is not None, "leading")
                assert "wattscale_planner_hindered 0.0" in (await fetch(f"{health.url}/metrics"))[1]
                assert (await fetch(f"{health.url}/readyz")) == (200, "ok\n")
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                instruments.close()
        assert sum("not leading: message 1" in record.getMessage() for record in caplog.records) == 1


async def test_traces_run_from_the_decision_to_its_acknowledgement(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    traces = Tracing(exporter)
    async with staged(tmp_path) as stage:
        bus = await stage.another_bus()
        service = stage.service(bus, "traced", trace=traces.begin)
        service.watch(traces.watch)
        task = asyncio.create_task(service.run())
        try:
            stage.load_rps = 20.0
            await until(lambda: len(stage.fleet.workers[PREFILL]) > 1, "a scale-up")
            carried_out = "carry out scaling"
            await until(lambda: any(s.name == carried_out for s in exporter.get_finished_spans()), "its span's end")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await bus.close()
    await asyncio.to_thread(traces.close)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    carried, parents = spans[carried_out], {s.context.span_id for s in exporter.get_finished_spans()}
    assert carried.parent is not None
    assert carried.parent.span_id in parents
    assert carried.start_time is not None
    assert carried.end_time is not None
    assert carried.end_time > carried.start_time


def test_logs_are_one_json_object_a_line() -> None:
    record = logging.LogRecord("planner", logging.INFO, "", 0, "decided %d", (3,), None)
    record.__dict__["deployment"] = NAME
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "decided 3"
    assert line["deployment"] == NAME
    assert line["time"].endswith("Z")
