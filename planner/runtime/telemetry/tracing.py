"""Traces from observation to acknowledgement: one span a decision, one below it until it was carried out.

The trace context travels in the messages' ``traceparent``, so that an actuator's own spans join. Without an endpoint
nothing is recorded and nothing of the exporter is imported.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from planner.domain.plan import Plan
from planner.runtime.decision_event import DecisionEvent

log = logging.getLogger(__name__)

OPEN_AT_MOST = 10_000
"""Spans that wait for an acknowledgement; beyond, the oldest ends unanswered."""
LAST_TRACES_S = 3.0
NS = 1_000_000_000


class Tracing:
    """Spans of decisions. A watcher, and asked for a ``traceparent`` before each batch."""

    def __init__(self, exporter: SpanExporter | None) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: Tracer = trace.NoOpTracer()
        self._waiting: OrderedDict[tuple[str, str, int], Span] = OrderedDict()
        self._decision: Span | None = None
        if exporter is not None:
            self._provider = TracerProvider(resource=Resource.create({"service.name": "wattscale-planner"}))
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
            self._tracer = self._provider.get_tracer("wattscale.planner")

    def begin(self, decided: DecisionEvent) -> str | None:
        """The trace context of a decision that is about to be published; None where traces go nowhere."""
        if self._provider is None:
            return None
        started_ns = time.time_ns() - int(decided.took_s * NS)
        name = "tick" if decided.tick else "event"
        attributes = {"epoch": decided.epoch, "scaling": len(decided.plan.scaling), "power": len(decided.plan.power)}
        self._decision = self._tracer.start_span(name, start_time=started_ns, attributes=attributes)
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(self._decision))
        return carrier.get("traceparent")

    def watch(self, decided: DecisionEvent) -> None:
        """The decision was stored: end its span, open one per order, end those that were answered."""
        if self._provider is None:
            return
        self._answered(decided)
        if self._decision is None:
            return
        context = trace.set_span_in_context(self._decision)
        for key in _keys(decided.plan):
            self._waiting[key] = self._tracer.start_span(f"carry out {key[0]}", context, attributes={"who": key[1]})
        self._decision.end()
        self._decision = None
        while len(self._waiting) > OPEN_AT_MOST:
            self._waiting.popitem(last=False)[1].end()

    def _answered(self, decided: DecisionEvent) -> None:
        acks, power_acks = decided.observation.scaling_acks.values(), decided.observation.power_acks
        seen = [("scaling", str(ack.deployment), ack.scaled_decision_id) for ack in acks]
        seen += [("power", str(ack.node), ack.applied_decision_id) for ack in power_acks]
        for kind, who, upto in seen:
            for key in [key for key in self._waiting if key[:2] == (kind, who) and key[2] <= upto]:
                self._waiting.pop(key).end()

    def close(self) -> None:
        """Send what is left, but do not wait for a collector that hangs."""
        for span in self._waiting.values():
            span.end()
        if self._provider is not None:
            sending = threading.Thread(target=self._provider.shutdown, name="last traces", daemon=True)
            sending.start()
            sending.join(LAST_TRACES_S)


def _keys(plan: Plan) -> list[tuple[str, str, int]]:
    scaling = [("scaling", str(order.deployment), order.decision_id) for order in plan.scaling]
    return scaling + [("power", str(order.node), order.decision_id) for order in plan.power]


def tracing(endpoint: str) -> Tracing:
    """Traces to an OTLP endpoint over HTTP; nowhere without one. Raises ImportError without the extra ``otlp``."""
    if not endpoint:
        return Tracing(None)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return Tracing(OTLPSpanExporter(endpoint=endpoint))
