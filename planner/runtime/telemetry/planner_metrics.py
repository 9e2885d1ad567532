"""The ONE list of the planner's own metrics. ``METRICS.md`` is generated from it, and a test keeps them alike.

``dynamo_planner_*`` are the gauges that dashboards made for Dynamo's planner read: the same names, from our plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from planner.runtime.telemetry.guide_metrics import FROM_DYNAMO, LABELS


class InstrumentKind(StrEnum):
    """What a metric is to Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class PlannerMetric:
    """One metric: its name as exported, its labels, and one sentence."""

    name: str
    kind: InstrumentKind
    help: str
    labels: tuple[str, ...] = ()


LEADING = PlannerMetric("wattscale_planner_leading", InstrumentKind.GAUGE, "1 while this process holds the lease.")
HINDERED = PlannerMetric(
    "wattscale_planner_hindered",
    InstrumentKind.GAUGE,
    "1 while something other than another leader keeps this process from leading; /readyz names it.",
)
PROBLEM = PlannerMetric(
    "wattscale_planner_problem",
    InstrumentKind.GAUGE,
    "1 for each problem that this planner sees (not_leading, second_agent, flooding, other_budget, no_node, "
    "implausible), with the node, deployment or site concerned.",
    ("problem", "who"),
)
EPOCH = PlannerMetric(
    "wattscale_planner_epoch", InstrumentKind.GAUGE, "Lease sequence of the newest term of this process."
)
TERMS = PlannerMetric("wattscale_planner_terms_total", InstrumentKind.COUNTER, "Terms of leadership begun.")
DECISIONS = PlannerMetric(
    "wattscale_planner_decisions_total",
    InstrumentKind.COUNTER,
    "Decisions published, by kind (scaling, power).",
    ("kind",),
)
ITERATIONS = PlannerMetric(
    "wattscale_planner_iterations_total",
    InstrumentKind.COUNTER,
    "Planner iterations, by cause (tick, event).",
    ("cause",),
)
ITERATIONS_FORMER_NAME = PlannerMetric(
    "wattscale_planner_looks_total",
    InstrumentKind.COUNTER,
    "Former name of wattscale_planner_iterations_total; goes away with the next release.",
    ("cause",),
)
STEP_SECONDS = PlannerMetric(
    "wattscale_planner_step_seconds", InstrumentKind.HISTOGRAM, "Computing time of one iteration, by cause.", ("cause",)
)
PUBLISH_SECONDS = PlannerMetric(
    "wattscale_planner_publish_seconds", InstrumentKind.HISTOGRAM, "Time until the bus had stored a batch of decisions."
)
LIMITS = PlannerMetric(
    "wattscale_planner_limits_total",
    InstrumentKind.COUNTER,
    "Limits that changed a count between wanted and granted, by reason.",
    ("deployment", "pool", "reason"),
)
REPLICAS = PlannerMetric(
    "wattscale_planner_replicas",
    InstrumentKind.GAUGE,
    "Replicas by stage (current, wanted, granted).",
    ("deployment", "pool", "stage"),
)
OBSERVED = PlannerMetric(
    "wattscale_planner_observed",
    InstrumentKind.GAUGE,
    "Readings of the last tick; the unit is in the quantity's name.",
    ("deployment", "quantity"),
)
MISSING = PlannerMetric(
    "wattscale_planner_missing",
    InstrumentKind.GAUGE,
    "1 for each quantity that the last tick could not read, with the reason.",
    ("deployment", "quantity", "reason"),
)
FORECAST = PlannerMetric(
    "wattscale_planner_forecast",
    InstrumentKind.GAUGE,
    "Forecast of the last tick, by band (lower, mean, upper).",
    ("deployment", "quantity", "band"),
)
CORRECTION = PlannerMetric(
    "wattscale_planner_correction",
    InstrumentKind.GAUGE,
    "Factor by which the profile is corrected: observed over expected latency.",
    ("deployment", "phase"),
)
GPU_WATTS = PlannerMetric(
    "wattscale_planner_gpu_watts",
    InstrumentKind.GAUGE,
    "Watts of one GPU of a pool: P_u as assumed and as learned (p_u_assumed, p_u), draw as measured and as the "
    "power law expects it (drawn, expected).",
    ("deployment", "pool", "figure"),
)
POWER_READINGS = PlannerMetric(
    "wattscale_planner_power_readings",
    InstrumentKind.GAUGE,
    "Readings from which a pool's P_u was learned at its batch, by kind (sample: below the cap; bound: at it).",
    ("deployment", "pool", "kind"),
)
EXPECTED = PlannerMetric(
    "wattscale_planner_expected",
    InstrumentKind.GAUGE,
    "Performance expected of the granted replicas; the unit is in the quantity's name.",
    ("deployment", "quantity"),
)
GOOD_SHARE = PlannerMetric(
    "wattscale_planner_good_share",
    InstrumentKind.GAUGE,
    "Share of work in time in the last interval, by phase (prompts, answers, requests) and kind (predicted, measured).",
    ("deployment", "phase", "kind"),
)
SHED_SHARE = PlannerMetric(
    "wattscale_planner_shed_share",
    InstrumentKind.GAUGE,
    "Share of the arriving requests that a gateway should shed or delay, by its priority; absent while all are served.",
    ("deployment", "priority"),
)
SLO_SHARE = PlannerMetric(
    "wattscale_planner_slo_share",
    InstrumentKind.GAUGE,
    "The promised share of good requests; absent where none is promised.",
    ("deployment",),
)
QUANTILE = PlannerMetric(
    "wattscale_planner_sizing_quantile",
    InstrumentKind.GAUGE,
    "The quantile that is sized for to keep the promised share.",
    ("deployment",),
)
BURN_RATE = PlannerMetric(
    "wattscale_planner_burn_rate",
    InstrumentKind.GAUGE,
    "Late requests over those that the promised share allows, in the last hour: 1 spends the error budget exactly.",
    ("deployment",),
)
BUDGET_LEFT = PlannerMetric(
    "wattscale_planner_error_budget_left",
    InstrumentKind.GAUGE,
    "Part of the late requests allowed so far that is left, by period of UTC (day, month); below 0: overspent.",
    ("deployment", "period"),
)
JUDGED = PlannerMetric(
    "wattscale_planner_judged_requests_total",
    InstrumentKind.COUNTER,
    "Requests of deployments with a promised share whose latency was measured.",
    ("deployment",),
)
LATE = PlannerMetric(
    "wattscale_planner_late_requests_total",
    InstrumentKind.COUNTER,
    "Those of them that missed a target, by the engines' histograms.",
    ("deployment",),
)
READY = PlannerMetric(
    "wattscale_planner_ready",
    InstrumentKind.GAUGE,
    "1 when the last scaling decision was carried out.",
    ("deployment",),
)
SITE_WATTS = PlannerMetric(
    "wattscale_site_watts",
    InstrumentKind.GAUGE,
    "A site's watts by account (budget, charged, enforced, draw, free, shortfall).",
    ("site", "account"),
)
SITE_FROZEN = PlannerMetric(
    "wattscale_site_frozen",
    InstrumentKind.GAUGE,
    "1 for each invariant that freezes raises now.",
    ("site", "invariant"),
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
    "power_projected_watts": "The most that the site's GPUs may draw by all decisions published so far.",
    "power_budget_utilization": "Charged watts over the budget.",
}
DYNAMO_PREFIX = "dynamo_planner_"
DYNAMO = {
    name: PlannerMetric(DYNAMO_PREFIX + name, InstrumentKind.GAUGE, text, ("dynamo_namespace", "model_name"))
    for name, text in _DYNAMO.items()
}

OURS = (
    LEADING,
    HINDERED,
    PROBLEM,
    EPOCH,
    TERMS,
    ITERATIONS,
    ITERATIONS_FORMER_NAME,
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
    GOOD_SHARE,
    SHED_SHARE,
    SLO_SHARE,
    QUANTILE,
    BURN_RATE,
    BUDGET_LEFT,
    JUDGED,
    LATE,
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
        "Generated from `planner/runtime/telemetry/planner_metrics.py`; served at `/metrics` of the health port.",
        "Metrics of plans and sites are on the page only while the process leads.",
        "",
        "| metric | kind | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    guides = (PlannerMetric(name, InstrumentKind.GAUGE, text, LABELS) for name, (_, text) in FROM_DYNAMO.items())
    for metric in (*OURS, *DYNAMO.values(), *guides):
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"
