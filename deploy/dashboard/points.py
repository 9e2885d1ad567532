"""One point of each chart from one plan record: load, latency, replicas, watts, energy. Pure.

Units in the names. What a record does not hold is absent, which the page draws as a gap and never as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bus_schemas import v1
from deploy.dashboard.timeline import milliseconds

RATE = "request_rate_per_s"
LATENCIES = ("ttft_ms", "itl_ms")


def deployment_point(record: v1.PlanRecord, gpus_per_replica: Mapping[str, int]) -> dict[str, Any]:
    """A deployment's tick. ``ahead``: the forecast: milliseconds of load time ahead, mean, lower, upper.

    ``gpus_per_replica``: by pool, which a record does not state and a decision does.
    """
    point: dict[str, Any] = {"t": milliseconds(record.time), "decision": record.decision_id}
    interval_s, requests = record.observed.get("interval_s"), record.observed.get("requests")
    if interval_s:
        point["interval_ms"] = round(interval_s * 1000)
    if interval_s and requests is not None:
        point["rate"] = _short(requests / interval_s)
    if (ahead := record.forecasts.get(RATE)) is not None:
        point["ahead"] = [round(ahead.horizon_s * 1000), *map(_short, (ahead.mean, ahead.lower, ahead.upper))]
    for name in LATENCIES:
        if name in record.observed:
            point[name] = _short(record.observed[name])
    point["pools"] = {name: [pool.wanted, pool.granted, pool.current] for name, pool in record.pools.items()}
    joules = joules_per_token(record, gpus_per_replica)
    if joules is not None:
        point["joules_per_token"] = _short(joules)
    if "joules_per_token" in record.expected:
        point["expected_joules_per_token"] = _short(record.expected["joules_per_token"])
    return point


def site_point(record: v1.PlanRecord) -> dict[str, Any]:
    """The watts of the record's whole site."""
    values = {
        "budget": record.budget_watts,
        "charged": record.charged_watts,
        "caps": record.enforced_watts,
        "drawn": record.draw_watts,
    }
    return {
        "t": milliseconds(record.time),
        **{name: round(value) for name, value in values.items() if value is not None},
    }


def joules_per_token(record: v1.PlanRecord, gpus_per_replica: Mapping[str, int]) -> float | None:
    """Measured energy of the deployment's GPUs over its output tokens in one interval; None where either is unknown."""
    interval_s, requests = record.observed.get("interval_s"), record.observed.get("requests")
    tokens, watts = record.observed.get("osl_tokens"), _drawn_watts(record, gpus_per_replica)
    if not (interval_s and requests and tokens and watts):
        return None
    return watts * interval_s / (requests * tokens)


def _drawn_watts(record: v1.PlanRecord, gpus_per_replica: Mapping[str, int]) -> float | None:
    total = 0.0
    for name, pool in record.pools.items():
        power, gpus = record.gpu_power.get(name), gpus_per_replica.get(name)
        if pool.current == 0:
            continue
        if power is None or power.drawn_watts is None or gpus is None:
            return None
        total += power.drawn_watts * pool.current * gpus
    return total


def _short(value: float) -> float:
    """Four digits: what a chart can show."""
    return float(f"{value:.4g}")
