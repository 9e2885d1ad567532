"""Names, types and meanings of the Prometheus metrics of agent and connectors: two tables, and METRICS.md from them.

Names stand beside dcgm-exporter's, and a GPU's metrics carry its labels with its values, so that the two join and one
dashboard's filters select both. ``METRICS.md`` is made from the tables (``python -m agent.runtime.agent_metrics``) and
checked against them.
"""

from __future__ import annotations

from dataclasses import dataclass

NODE = ("node",)
DCGM = ("gpu", "UUID", "device", "modelName", "Hostname", "namespace", "pod", "container")
"""dcgm-exporter's own, as it spells them (its GPU format, and the names of its pod mapper)."""
GPU = (*DCGM, *NODE, "deployment", "pool", "role")


@dataclass(frozen=True, slots=True)
class AgentMetric:
    """One metric. ``beside``: the nearest metric of dcgm-exporter."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    beside: str = ""


@dataclass(frozen=True, slots=True)
class ConnectorMetric:
    """One metric of connectors. ``of``: the kinds that have it."""

    name: str
    kind: str
    help: str
    of: str
    labels: tuple[str, ...] = ("deployment",)


def _gpu(name: str, text: str, beside: str = "", *more: str, kind: str = "gauge") -> AgentMetric:
    return AgentMetric(f"wattscale_gpu_{name}", kind, text, (*GPU, *more), beside and f"DCGM_FI_DEV_{beside}")


def _gauge(name: str, text: str) -> AgentMetric:
    return AgentMetric(f"wattscale_agent_{name}", "gauge", text, NODE)


def _counter(name: str, text: str, *more: str) -> AgentMetric:
    return AgentMetric(f"wattscale_agent_{name}_total", "counter", text, (*NODE, *more))


METRICS: tuple[AgentMetric, ...] = (
    _gpu("draw_watts", "Power drawn now.", "POWER_USAGE"),
    _gpu("energy_joules_total", "Energy since the driver was loaded.", "TOTAL_ENERGY_CONSUMPTION (mJ)", kind="counter"),
    _gpu("granted_watts", "Upper bound by the newest decision, or its fallback once the lease has ended."),
    _gpu("requested_watts", "The limit requested from the driver, by any process.", "POWER_MGMT_LIMIT"),
    _gpu("enforced_watts", "The limit in force: the lowest of all limits.", "ENFORCED_POWER_LIMIT"),
    _gpu("default_watts", "The limit after a driver reload or reset.", "POWER_MGMT_LIMIT_DEF"),
    _gpu("min_watts", "The lowest limit that the GPU accepts.", "POWER_MGMT_LIMIT_MIN"),
    _gpu("max_watts", "The highest limit that the GPU accepts.", "POWER_MGMT_LIMIT_MAX"),
    _gpu("health", "1 for the state that the GPU is in: ok, uncappable, quarantined, unknown.", "", "state"),
    _gpu("throttle_reason", "1 for each reason that throttles the clocks now.", "CLOCKS_EVENT_REASONS", "reason"),
    _gpu("last_xid", "The newest XID error since the driver was opened.", "XID_ERRORS"),
    _gauge("decision_id", "The newest decision that was accepted; -1: none yet."),
    _gauge("applied_decision_id", "The last decision that was fully in force; -1: none yet."),
    _counter("decisions", "Decisions received, by verdict.", "verdict"),
    _counter("writes", "Limits written."),
    _counter("write_errors", "Limits that the driver refused."),
    _counter("clamped", "Writes after which the driver requested another limit than the one written."),
    _counter("drift", "Limits found changed by another process."),
    _counter("resets", "GPU resets and driver reloads seen."),
    _counter("lapses", "Leases that ended: caps stepped down to their fallbacks."),
    _gauge("hung_gpus", "GPUs whose driver call has not returned."),
    _gauge("unidentified_gpus", "GPUs that fail before their UUID is known."),
    _gauge("last_reconcile_age_seconds", "Seconds since the last good reconcile."),
    _gauge("bus_connected", "1 while connected to the bus; absent without one."),
    _gauge("malformed_annotations", "Power annotations on this node that cannot be read."),
    _gauge("managed_gpus", "GPUs that annotations have capped."),
)
_ACKNOWLEDGING = "kubernetes, local, virtual"
CONNECTOR_METRICS: tuple[ConnectorMetric, ...] = (
    ConnectorMetric(
        "wattscale_connector_decision_id",
        "gauge",
        "The decision that is pursued or was last; -1: none.",
        _ACKNOWLEDGING,
    ),
    ConnectorMetric(
        "wattscale_connector_scaled_decision_id",
        "gauge",
        "The last decision that was carried out completely; -1: none.",
        _ACKNOWLEDGING,
    ),
    ConnectorMetric(
        "wattscale_connector_bus_connected", "gauge", "1 while connected to the bus.", f"{_ACKNOWLEDGING}, pin"
    ),
    ConnectorMetric(
        "wattscale_connector_decisions_total",
        "counter",
        "Decisions received, by what became of them.",
        _ACKNOWLEDGING,
        ("deployment", "verdict"),
    ),
    ConnectorMetric(
        "wattscale_connector_second_writer_pools",
        "gauge",
        "Pools whose replica count is also set by another writer, by its kind (autoscaler, person, other).",
        "kubernetes",
        ("deployment", "writer"),
    ),
    ConnectorMetric(
        "wattscale_connector_external_decision_id",
        "gauge",
        "The highest id that was passed on to etcd; -1: none.",
        "virtual (etcd)",
    ),
    ConnectorMetric(
        "wattscale_connector_serving",
        "gauge",
        "1 while etcd or Redis answers and this connector alone serves there.",
        "virtual, pin",
    ),
    ConnectorMetric(
        "wattscale_connector_dynamo_decision_id", "gauge", "The Dynamo planner's decision in etcd; -1: none.", "pin"
    ),
    ConnectorMetric(
        "wattscale_connector_dynamo_scaled_decision_id", "gauge", "The one that is completed there; -1: none.", "pin"
    ),
    ConnectorMetric(
        "wattscale_connector_dynamo_decision_open",
        "gauge",
        "1 while its decision is not completed; the log says why.",
        "pin",
    ),
    ConnectorMetric(
        "wattscale_connector_counts_known",
        "gauge",
        "1 while counts are served, 0 while errors are.",
        "autoscaler",
    ),
    ConnectorMetric(
        "wattscale_connector_wanted_replicas",
        "gauge",
        "The count that is served.",
        "autoscaler",
        ("deployment", "pool"),
    ),
    ConnectorMetric(
        "wattscale_connector_steps_lost_from",
        "gauge",
        "From which count on this HorizontalPodAutoscaler ignores single steps; absent: from none.",
        "autoscaler",
        ("deployment", "pool", "autoscaler"),
    ),
)
_HEAD = """# Metrics of power agent and connectors

Made from the tables in `agent/runtime/agent_metrics.py` by `python -m agent.runtime.agent_metrics`. A value that is not
known is left out, never shown as 0.

A GPU's metrics have dcgm-exporter's labels with its values (`gpu`, `UUID`, `device`, `modelName`, `Hostname`,
`namespace`, `pod`, `container`), so that they join on `UUID`, as in
`wattscale_gpu_granted_watts - on (UUID) DCGM_FI_DEV_POWER_USAGE`. `Hostname` is the node's name, for which
dcgm-exporter takes its variable `NODE_NAME`. A scrape configuration that adds `namespace`, `pod` and `container` of the
scraped pod must have `honorLabels: true`, or the labels arrive as `exported_pod` and so on, for both exporters. A GPU
has three caps: `wattscale_gpu_granted_watts` (what the newest decision allows), `wattscale_gpu_requested_watts` (what
the driver was asked for) and `wattscale_gpu_enforced_watts` (what is in force).

| name | type | meaning | labels | beside dcgm-exporter's |
| --- | --- | --- | --- | --- |
"""


_CONNECTORS_HEAD = """
## Connectors

| name | type | meaning | labels | connector |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """``METRICS.md``."""
    rows = []
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        beside = f"`{metric.beside}`" if metric.beside else ""
        rows.append(f"| `{metric.name}` | {metric.kind} | {metric.help} | {labels} | {beside} |\n")
    rows.append(_CONNECTORS_HEAD)
    for one in CONNECTOR_METRICS:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        rows.append(f"| `{one.name}` | {one.kind} | {one.help} | {labels} | {one.of} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    print(page(), end="")
