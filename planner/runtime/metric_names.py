"""The ONE list of the planner's own metrics. ``METRICS.md`` is generated from it, and a test keeps them alike.

``dynamo_planner_*`` are the gauges that dashboards made for Dynamo's planner read: the same names, from our plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a metric is to Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name as exported, its labels, and one sentence."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


LEADING = Metric("wattscale_planner_leading", Kind.GAUGE, "1 while this process holds the lease.")
EPOCH = Metric("wattscale_planner_epoch", Kind.GAUGE, "Lease sequence of the newest term of this process.")
TERMS = Metric("wattscale_planner_terms_total", Kind.COUNTER, "Terms of leadership begun.")
DECISIONS = Metric(
    "wattscale_planner_decisions_total", Kind.COUNTER, "Decisions published, by kind (scaling, power).", ("kind",)
)
DECIDED = Metric(
    "wattscale_planner_looks_total", Kind.COUNTER, "Times the state was looked at, by cause (tick, event).", ("cause",)
)
STEP_SECONDS = Metric(
    "wattscale_planner_step_seconds", Kind.HISTOGRAM, "Computing time of one look, by cause.", ("cause",)
)
PUBLISH_SECONDS = Metric(
    "wattscale_planner_publish_seconds", Kind.HISTOGRAM, "Time until a batch of decisions was stored."
)
LIMITS = Metric(
    "wattscale_planner_limits_total",
    Kind.COUNTER,
    "Links of the chains from wanted to granted, by reason.",
    ("deployment", "pool", "reason"),
)
REPLICAS = Metric(
    "wattscale_planner_replicas",
    Kind.GAUGE,
    "Replicas by stage (current, wanted, granted).",
    ("deployment", "pool", "stage"),
)
OBSERVED = Metric(
    "wattscale_planner_observed",
    Kind.GAUGE,
    "What the last tick saw; the unit is in the quantity's name.",
    ("deployment", "quantity"),
)
MISSING = Metric(
    "wattscale_planner_missing",
    Kind.GAUGE,
    "1 for each quantity that the last tick could not read, with the reason.",
    ("deployment", "quantity", "reason"),
)
FORECAST = Metric(
    "wattscale_planner_forecast",
    Kind.GAUGE,
    "Forecast of the last tick, by band (lower, mean, upper).",
    ("deployment", "quantity", "band"),
)
CORRECTION = Metric(
    "wattscale_planner_correction",
    Kind.GAUGE,
    "Observed over expected latency by which the profile is corrected.",
    ("deployment", "phase"),
)
GPU_WATTS = Metric(
    "wattscale_planner_gpu_watts",
    Kind.GAUGE,
    "Watts of one GPU of a pool: P_u as assumed and as learned (p_u_assumed, p_u), draw as measured and as the "
    "power law expects it (drawn, expected).",
    ("deployment", "pool", "figure"),
)
POWER_READINGS = Metric(
    "wattscale_planner_power_readings",
    Kind.GAUGE,
    "Draws that taught a pool's P_u at its batch, by kind (sample: below the cap; bound: at it).",
    ("deployment", "pool", "kind"),
)
EXPECTED = Metric(
    "wattscale_planner_expected",
    Kind.GAUGE,
    "What the granted replicas are expected to give; the unit is in the quantity's name.",
    ("deployment", "quantity"),
)
READY = Metric(
    "wattscale_planner_ready", Kind.GAUGE, "1 when the last scaling decision was carried out.", ("deployment",)
)
SITE_WATTS = Metric(
    "wattscale_site_watts",
    Kind.GAUGE,
    "A site's watts by account (budget, charged, enforced, draw, free, shortfall).",
    ("site", "account"),
)
SITE_FROZEN = Metric(
    "wattscale_site_frozen", Kind.GAUGE, "1 for each invariant that freezes raises now.", ("site", "invariant")
)

_DYNAMO = {
    "num_prefill_replicas": "Prefill replicas now.",
    "num_decode_replicas": "Decode replicas now.",
    "predicted_num_prefill_replicas": "Prefill replicas granted.",
    "predicted_num_decode_replicas": "Decode replicas granted.",
    "observed_ttft_ms": "Mean TTFT of the last interval.",
    "observed_itl_ms": "Mean ITL of the last interval.",
    "observed_requests_per_second": "Requests started per second of the last interval.",
    "observed_input_sequence_tokens": "Mean input length of the last interval.",
    "observed_output_sequence_tokens": "Mean output length of the last interval.",
    "observed_request_duration_seconds": "Mean request duration of the last interval.",
    "predicted_requests_per_second": "Forecast of requests per second.",
    "predicted_input_sequence_tokens": "Forecast of the mean input length.",
    "predicted_output_sequence_tokens": "Forecast of the mean output length.",
    "estimated_ttft_ms": "TTFT expected with the granted replicas.",
    "estimated_itl_ms": "ITL expected with the granted replicas.",
    "sla_target_ttft_ms": "The TTFT target.",
    "sla_target_itl_ms": "The ITL target.",
    "gpu_hours": "GPU hours of the running replicas since this process began to lead.",
    "power_budget_total_watts": "The site's budget.",
    "power_projected_watts": "The most that the site's GPUs may draw by everything published.",
    "power_budget_utilization": "Charged watts over the budget.",
}
DYNAMO_PREFIX = "dynamo_planner_"
DYNAMO = {
    name: Metric(DYNAMO_PREFIX + name, Kind.GAUGE, text, ("dynamo_namespace", "model_name"))
    for name, text in _DYNAMO.items()
}

OURS = (
    LEADING,
    EPOCH,
    TERMS,
    DECIDED,
    DECISIONS,
    STEP_SECONDS,
    PUBLISH_SECONDS,
    LIMITS,
    REPLICAS,
    OBSERVED,
    MISSING,
    FORECAST,
    CORRECTION,
    EXPECTED,
    GPU_WATTS,
    POWER_READINGS,
    READY,
    SITE_WATTS,
    SITE_FROZEN,
)


def page() -> str:
    """The page that lists them all."""
    lines = [
        "# The planner's metrics",
        "",
        "Generated from `planner/runtime/metric_names.py`; served at `/metrics` of the health port.",
        "",
        "| metric | kind | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for metric in (*OURS, *DYNAMO.values()):
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"
