"""What the agent shows Prometheus, as text.

Owns the values; the names are ``metric_names``'. Unknown is left out, never shown as 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent.adapters.telemetry import GpuView
from agent.core.caps import Health
from agent.runtime.agent_metrics import METRICS
from agent.runtime.service import PowerAgentService


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One value of one metric."""

    name: str
    value: float
    labels: Mapping[str, str]


def samples(service: PowerAgentService) -> Iterator[MetricSample]:
    """Everything that is known now."""
    node = {"node": service.settings.node}
    for view in service.picture.views().values():
        yield from _gpu(view, service.settings.node)
    counts, state = service.enforcer.counts, service.enforcer.state
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
    if service.annotator is not None:
        yield MetricSample("wattscale_agent_malformed_annotations", service.annotator.malformed, node)
        yield MetricSample("wattscale_agent_managed_gpus", len(service.annotator.found_mw), node)


def _gpu(view: GpuView, node: str) -> Iterator[MetricSample]:
    info, reading, owner = view.info, view.reading, view.owner
    labels = {
        "UUID": info.gpu,
        "gpu": str(info.index),
        "modelName": info.model,
        "node": node,
        "pod": owner.pod,
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


def exposition(found: Iterator[MetricSample]) -> str:
    """Prometheus' text format, one block per metric in the order of the table."""
    by_name: dict[str, list[MetricSample]] = {}
    for sample in found:
        by_name.setdefault(sample.name, []).append(sample)
    lines = []
    for metric in METRICS:
        if metric.name in by_name:
            lines.append(f"# HELP {metric.name} {metric.help}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines.extend(_line(sample) for sample in by_name[metric.name])
    return "\n".join(lines) + "\n"


def _line(sample: MetricSample) -> str:
    labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
    value = int(sample.value) if float(sample.value).is_integer() else sample.value
    return f"{sample.name}{{{labels}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
