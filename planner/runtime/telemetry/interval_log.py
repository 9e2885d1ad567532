"""The guides' log lines, once an interval for each deployment: readings, targets, and what follows from them.

They are written beside the decision's own line (``decision_log``), in the guides' words, so that their ``grep`` still
finds them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from planner.domain.config import DeploymentConfig, PlannerConfig
from planner.domain.plan import DeploymentPlan, PoolPlan
from planner.runtime.decision_event import DecisionEvent

log = logging.getLogger("planner.interval")

METRICS = {
    "requests": "dynamo_frontend_requests_started_total",
    "isl_tokens": "dynamo_frontend_input_sequence_tokens",
    "osl_tokens": "dynamo_frontend_output_sequence_tokens",
    "ttft_ms": "dynamo_frontend_time_to_first_token_seconds",
    "itl_ms": "dynamo_frontend_inter_token_latency_seconds",
    "request_duration_s": "dynamo_frontend_request_duration_seconds",
}
"""The frontend's names of the readings whose absence is worth a line."""
REMEDY = "send requests, or check that its target is scraped and that model and dynamo_namespace of the series match"


class IntervalLog:
    """A watcher of decisions. ``models``: by deployment, the name in the series' label."""

    def __init__(self, config: PlannerConfig, models: Mapping[str, str]) -> None:
        self._config = config
        self._models = models
        self._named: set[str] = set()

    def __call__(self, decided: DecisionEvent) -> None:
        """Log one decision's intervals."""
        for name, plan in decided.plan.deployments.items():
            extra = {"deployment": name, "epoch": decided.epoch}
            if name not in self._named:
                self._named.add(name)
                log.info("Model name of the deployment: %s", self._models.get(name) or "any", extra=extra)
            for quantity, why in plan.missing.items():
                if quantity in METRICS:
                    metric = METRICS[quantity]
                    log.warning("No prometheus metric data available for %s (%s): %s", metric, why, REMEDY, extra=extra)
            for line in lines(plan, self._config.deployments[name]):
                log.info(line, extra=extra)


def lines(plan: DeploymentPlan, config: DeploymentConfig) -> Iterator[str]:
    """The interval in the guides' words."""
    seen = plan.observed
    yield (
        f"Observed num_req: {_number(seen.get('requests'))} isl: {_number(seen.get('isl_tokens'))} "
        f"osl: {_number(seen.get('osl_tokens'))}"
    )
    yield f"Observed ttft: {_ms(seen.get('ttft_ms'))} itl: {_ms(seen.get('itl_ms'))}"
    for what, value, target in (
        ("TTFT", seen.get("ttft_ms"), config.ttft_ms),
        ("ITL", seen.get("itl_ms"), config.itl_ms),
    ):
        if value is not None and value > target:
            yield f"Current {what}: {value:.0f}ms, Target: {target:.0f}ms (exceeding SLA)"
    for pool in plan.pools.values():
        if pool.granted != pool.current:
            yield f"Scaling {pool.pool} workers: {pool.current} -> {pool.granted} ({_why(pool)})"
    capped = [pool for pool in plan.pools.values() if pool.setpoint is not None]
    if capped:
        shown = ", ".join(f"{pool.granted} {pool.pool} @ {_watts(pool):.0f}W" for pool in capped)
        yield f"Applied power limits: {shown}"


def _why(pool: PoolPlan) -> str:
    return pool.chain[-1].sentence if pool.chain else "nothing limits it"


def _watts(pool: PoolPlan) -> float:
    return 0.0 if pool.setpoint is None else pool.setpoint.cap_mw / 1000.0


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}ms"
