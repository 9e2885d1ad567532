"""Traces from reading the metrics to the acknowledgement: one trace per tick that led to a decision.

Below a tick's span are reading the metrics (``scrape``), computing (``decide``), reactions to events until the next
tick (``event``), and one span per decision until it is acknowledged (``carry out ...``). The trace context travels in
the decisions' ``traceparent`` header, and agents and connectors put it into their acknowledgements, so spans of their
own join the trace. Without an endpoint nothing is recorded and the exporter is not imported.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from planner.domain.plan import Plan
from planner.runtime.decision_event import DecisionEvent

log = logging.getLogger(__name__)

OPEN_AT_MOST = 10_000
"""Spans that wait for an acknowledgement; beyond this number the oldest is ended without one."""
LAST_TRACES_S = 3.0
NS = 1_000_000_000


class Tracing:
    """Spans of decisions: `begin` before a batch is published, `watch` after each decision."""

    def __init__(self, exporter: SpanExporter | None) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: Tracer = trace.NoOpTracer()
        self._waiting: OrderedDict[tuple[str, str, int], Span] = OrderedDict()
        self._decision: Span | None = None
        self._tick: Span | None = None
        self._unpublished_tick: tuple[DecisionEvent, int] | None = None
        """The last tick and its Unix time in nanoseconds, where it published nothing and so has no span."""
        if exporter is not None:
            self._provider = TracerProvider(resource=Resource.create({"service.name": "wattscale-planner"}))
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
            self._tracer = self._provider.get_tracer("wattscale.planner")

    def begin(self, decided: DecisionEvent) -> str | None:
        """The W3C trace context of the decisions that are about to be published; None without an exporter."""
        if self._provider is None:
            return None
        now_ns = time.time_ns()
        if decided.tick:
            self._tick = self._decision = self._tick_span(decided, now_ns)
        else:
            if self._tick is None and self._unpublished_tick is not None:
                tick, ended_ns = self._unpublished_tick
                self._tick = self._tick_span(tick, ended_ns)
                self._tick.end(ended_ns)
            context = trace.set_span_in_context(self._tick) if self._tick is not None else Context()
            started_ns = now_ns - int(decided.took_s * NS)
            self._decision = self._tracer.start_span("event", context, start_time=started_ns, attributes=_size(decided))
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(self._decision))
        return carrier.get("traceparent")

    def _tick_span(self, decided: DecisionEvent, decided_ns: int) -> Span:
        """A root span for a tick, from reading the metrics on, with its finished parts below it. Unix nanoseconds."""
        computing_ns = decided_ns - int(decided.took_s * NS)
        read_ns = decided.read_ns or (computing_ns, computing_ns)
        span = self._tracer.start_span("tick", Context(), start_time=read_ns[0], attributes=_size(decided))
        context = trace.set_span_in_context(span)
        if decided.read_ns is not None:
            self._tracer.start_span("scrape", context, start_time=read_ns[0]).end(read_ns[1])
        self._tracer.start_span("decide", context, start_time=computing_ns).end(decided_ns)
        return span

    def watch(self, decided: DecisionEvent) -> None:
        """End the span of the published decisions, open one per decision, and end those that were acknowledged."""
        if self._provider is None:
            return
        self._end_acknowledged(decided)
        if decided.tick and not decided.published:
            self._tick, self._unpublished_tick = None, (decided, time.time_ns())
        if self._decision is None or not decided.published:
            return
        context = trace.set_span_in_context(self._decision)
        for key in _keys(decided.plan):
            self._waiting[key] = self._tracer.start_span(f"carry out {key[0]}", context, attributes={"who": key[1]})
        self._decision.end()
        self._decision = None
        while len(self._waiting) > OPEN_AT_MOST:
            self._waiting.popitem(last=False)[1].end()

    def _end_acknowledged(self, decided: DecisionEvent) -> None:
        acks, power_acks = decided.observation.scaling_acks.values(), decided.observation.power_acks
        seen = [("scaling", str(ack.deployment), ack.scaled_decision_id) for ack in acks]
        seen += [("power", str(ack.node), ack.applied_decision_id) for ack in power_acks]
        for kind, who, upto in seen:
            for key in [key for key in self._waiting if key[:2] == (kind, who) and key[2] <= upto]:
                self._waiting.pop(key).end()

    def close(self) -> None:
        """Send the spans that are left; waits at most LAST_TRACES_S for the collector."""
        for span in self._waiting.values():
            span.end()
        if self._provider is not None:
            sending = threading.Thread(target=self._provider.shutdown, name="last traces", daemon=True)
            sending.start()
            sending.join(LAST_TRACES_S)


def _size(decided: DecisionEvent) -> dict[str, int]:
    return {"epoch": decided.epoch, "scaling": len(decided.plan.scaling), "power": len(decided.plan.power)}


def _keys(plan: Plan) -> list[tuple[str, str, int]]:
    scaling = [("scaling", str(order.deployment), order.decision_id) for order in plan.scaling]
    return scaling + [("power", str(order.node), order.decision_id) for order in plan.power]


def tracing(endpoint: str) -> Tracing:
    """Traces sent to an OTLP endpoint over HTTP; an empty endpoint records none.

    Raises ImportError without the extra ``otlp``.
    """
    if not endpoint:
        return Tracing(None)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return Tracing(OTLPSpanExporter(endpoint=endpoint))
