"""Feeds the agent's metrics from its state, through the OpenTelemetry SDK into a Prometheus page.

Owns the values; names and help texts are in ``agent_metrics``. Every instrument is read when the page is made, so that
nothing goes stale by being set once, and a value that is not known is left out, never shown as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest

from agent.adapters.telemetry import GpuView
from agent.core.caps import Health
from agent.ports import GpuOwner
from agent.runtime.agent_metrics import METRICS, AgentMetric
from agent.runtime.service import PowerAgentService


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One value of one metric."""

    name: str
    value: float
    labels: Mapping[str, str]


class AgentInstruments:
    """One agent's metrics; ``page`` is the exposition text."""

    def __init__(self, service: PowerAgentService) -> None:
        self._service = service
        self._samples: dict[str, list[MetricSample]] = {}
        self._owners: Mapping[str, GpuOwner] = {}
        self._registry, self._provider = self._opened()

    def page(self) -> bytes:
        """The metrics as text in Prometheus' format."""
        self._renew()
        self._samples = {}
        for sample in samples(self._service):
            self._samples.setdefault(sample.name, []).append(sample)
        return generate_latest(self._registry)

    def close(self) -> None:
        """Stop the SDK."""
        self._provider.shutdown()

    def _renew(self) -> None:
        """The SDK keeps every label set that it has ever seen, and pods come and go: start anew with new owners."""
        owners = self._service.gpu_owners.owners
        if owners != self._owners:
            self._owners = owners
            self._provider.shutdown()
            self._registry, self._provider = self._opened()

    def _opened(self) -> tuple[CollectorRegistry, MeterProvider]:
        registry = CollectorRegistry()
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=registry)
        # A resource of our own: the SDK's default looks through all installed packages for detectors.
        provider = MeterProvider(
            metric_readers=[reader],
            resource=Resource({}),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        meter = provider.get_meter("wattscale.agent")
        for metric in METRICS:
            # The exporter appends the suffix of counters by itself.
            make = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            make(metric.name.removesuffix("_total"), callbacks=[self._reader(metric)], description=metric.help)
        return registry, provider

    def _reader(self, metric: AgentMetric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def read(_: CallbackOptions) -> Iterator[Observation]:
            for sample in self._samples.get(metric.name, ()):
                yield Observation(sample.value, sample.labels)

        return read


def samples(service: PowerAgentService) -> Iterator[MetricSample]:
    """Everything that is known now."""
    node = {"node": service.settings.node}
    for view in service.view.views().values():
        yield from _gpu(view, service.settings.node)
    counts, state = service.reconciler.counts, service.reconciler.state
    yield MetricSample("wattscale_agent_decision_id", state.decision_id, node)
    yield MetricSample("wattscale_agent_applied_decision_id", state.applied_id, node)
    for verdict, count in sorted(counts.decisions.items()):
        yield MetricSample("wattscale_agent_decisions_total", count, {**node, "verdict": verdict})
    yield MetricSample("wattscale_agent_writes_total", counts.writes, node)
    yield MetricSample("wattscale_agent_write_errors_total", counts.write_errors, node)
    yield MetricSample("wattscale_agent_clamped_total", counts.clamped, node)
    yield MetricSample("wattscale_agent_drift_total", counts.drifts, node)
    yield MetricSample("wattscale_agent_resets_total", counts.resets, node)
    yield MetricSample("wattscale_agent_lapses_total", counts.lapses, node)
    yield MetricSample("wattscale_agent_hung_gpus", service.hung_gpus, node)
    yield MetricSample("wattscale_agent_unidentified_gpus", len(service.hardware.unidentified), node)
    if (age_s := service.reconcile_age_s) is not None:
        yield MetricSample("wattscale_agent_last_reconcile_age_seconds", age_s, node)
    if service.expects_bus:
        yield MetricSample(
            "wattscale_agent_bus_connected", float(service.bus is not None and service.bus.connected), node
        )
    if service.annotation_limits is not None:
        yield MetricSample("wattscale_agent_malformed_annotations", service.annotation_limits.malformed, node)
        yield MetricSample("wattscale_agent_managed_gpus", len(service.annotation_limits.found_mw), node)


def _gpu(view: GpuView, node: str) -> Iterator[MetricSample]:
    info, reading, owner = view.info, view.reading, view.owner
    namespace, _, pod = owner.pod.rpartition("/")
    labels = {
        "gpu": str(info.index),
        "UUID": info.gpu,
        "device": f"nvidia{info.index}",
        "modelName": info.model,
        "Hostname": node,
        "namespace": namespace,
        "pod": pod,
        "container": owner.container,
        "node": node,
        "deployment": owner.deployment,
        "pool": owner.pool,
        "role": owner.role,
    }
    milliwatts = {
        "draw": reading.draw_mw if reading else None,
        "granted": view.granted_mw,
        "requested": reading.requested_mw if reading else None,
        "enforced": reading.enforced_mw if reading else None,
        "default": info.default_mw,
        "min": info.min_mw,
        "max": info.max_mw,
    }
    for name, mw in milliwatts.items():
        if mw is not None:
            yield MetricSample(f"wattscale_gpu_{name}_watts", mw / 1000, labels)
    for state in Health:
        yield MetricSample("wattscale_gpu_health", float(view.health is state), {**labels, "state": state.value})
    if reading is None:
        return
    if reading.energy_mj is not None:
        yield MetricSample("wattscale_gpu_energy_joules_total", reading.energy_mj / 1000, labels)
    for reason in reading.throttle_reasons:
        yield MetricSample("wattscale_gpu_throttle_reason", 1.0, {**labels, "reason": reason})
    if reading.last_xid is not None:
        yield MetricSample("wattscale_gpu_last_xid", reading.last_xid, labels)
