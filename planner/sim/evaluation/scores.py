"""Scores of a run: the figures by which policies are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.sim.evaluation.misses import Cause, causes
from planner.sim.evaluation.simulation import Ended
from planner.sim.evaluation.timeline import WINDOW_S
from planner.sim.workload.scenario import BudgetSteps

TOLERANCE = 1e-3
"""Relative tolerance: rounding of the meter does not count as a violation."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One run's scores. Shares are 0..1; a request is good if its TTFT and its mean ITL both met their targets."""

    policy: str
    requests: int
    good_requests: int
    good_share: float
    ttft_ms_p50: float
    ttft_ms_p95: float
    ttft_ms_p99: float
    itl_ms_p50: float
    itl_ms_p95: float
    itl_ms_p99: float
    reachable_share: float
    """Good requests among those that some policy could have made good: without prompts too long for the target."""
    token_share: float
    """Good requests weighed by their output tokens: a lost long answer counts as much as it is long."""
    stall_ms_p99: float
    """99th percentile of the longest gap between two tokens of an answer."""
    gpu_hours: float
    energy_joules: float
    """Energy of all GPUs of the cluster, idle ones included, until the end of the load."""
    serving_energy_joules: float
    """Energy of GPUs while workers held them."""
    joules_per_good_output_token: float | None
    good_requests_per_kwh: float | None
    goodput_per_provisioned_watt: float
    """Good requests per second and watt of the budget (without one: of the nameplate of the most GPUs held at once)."""
    mean_watts: float
    peak_watts: float
    """Highest mean draw in a window of two seconds."""
    violation_watt_seconds: float
    violation_share: float
    """Share of windows above the budget, outside the compliance window after a cut."""
    comply_s: float | None
    """Longest time to get below a lowered budget; None without a cut, infinity if it never did."""
    changes_per_hour: Mapping[str, float]
    misses: Mapping[str, int]
    wall_s: float

    def as_json(self) -> dict[str, Any]:
        """The scores as JSON values."""
        values = asdict(self)
        values["comply_s"] = None if self.comply_s == float("inf") else self.comply_s
        return values


def score(ended: Ended) -> Scores:
    """Compute the scores of a finished run."""
    run = ended.run
    scenario, records = run.scenario, run.plant.records
    ttft, itl, osl = (records.column(name) for name in ("ttft_ms", "itl_ms", "osl"))
    met = records.met(scenario.ttft_ms, scenario.itl_ms)
    good, requests = int(met.sum()), run.plant.frontend.started
    good_tokens = float(osl[met].sum())
    watts = np.asarray(run.timeline.window_watts)
    over = _over(watts, scenario.budget)
    ttfts, itls = _percentiles(ttft), _percentiles(itl)
    missed = causes(run)
    reachable = requests - missed.get(Cause.UNREACHABLE.value, 0) - missed.get(Cause.REFUSED.value, 0)
    hours = max(scenario.end_s, 1e-9) / 3600
    return Scores(
        policy=run.policy.name,
        requests=requests,
        good_requests=good,
        good_share=good / requests if requests else 0.0,
        ttft_ms_p50=ttfts[0],
        ttft_ms_p95=ttfts[1],
        ttft_ms_p99=ttfts[2],
        itl_ms_p50=itls[0],
        itl_ms_p95=itls[1],
        itl_ms_p99=itls[2],
        reachable_share=good / reachable if reachable > 0 else 0.0,
        token_share=good_tokens / float(osl.sum()) if len(osl) else 0.0,
        stall_ms_p99=_percentiles(records.column("stall_ms"))[2],
        gpu_hours=ended.gpu_hours,
        energy_joules=ended.energy_j,
        serving_energy_joules=ended.serving_energy_j,
        joules_per_good_output_token=ended.energy_j / good_tokens if good_tokens else None,
        good_requests_per_kwh=good / (ended.energy_j / 3.6e6) if ended.energy_j else None,
        goodput_per_provisioned_watt=good / max(scenario.end_s, 1e-9) / _provisioned_watts(ended),
        mean_watts=float(watts.mean()) if len(watts) else 0.0,
        peak_watts=float(watts.max()) if len(watts) else 0.0,
        violation_watt_seconds=float(over.sum() * WINDOW_S),
        violation_share=float((over > 0).mean()) if len(over) else 0.0,
        comply_s=_comply_s(watts, scenario.budget, scenario.end_s),
        changes_per_hour={
            pool: count / hours for pool, count in sorted(Counter(c.pool for c in run.timeline.changes).items())
        },
        misses=missed,
        wall_s=ended.wall_s,
    )


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    if not len(values):
        return 0.0, 0.0, 0.0
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return float(p50), float(p95), float(p99)


def _provisioned_watts(ended: Ended) -> float:
    scenario = ended.run.scenario
    if scenario.budget is not None:
        steps = [*scenario.budget.steps, (scenario.end_s, 0)]
        held = sum(mw * max(0.0, end - start) for (start, mw), (end, _) in pairwise(steps))
        return max(1.0, held / max(scenario.end_s, 1e-9) / 1000)
    sizes = {pool.pool: pool.gpus_per_replica for pool in scenario.pools}
    most = max(
        (
            sum((row.ready[name] + row.starting[name]) * size for name, size in sizes.items())
            for row in ended.run.timeline.rows
        ),
        default=scenario.gpus,
    )
    return max(1.0, most * scenario.cluster.card.default_mw / 1000)


def _over(watts: NDArray[np.float64], budget: BudgetSteps | None) -> NDArray[np.float64]:
    """Watts above the budget to comply with, by window."""
    if budget is None:
        return np.zeros(len(watts))
    allowed = np.array([budget.demanded(i * WINDOW_S) for i in range(len(watts))]) / 1000
    return np.where(watts > allowed * (1 + TOLERANCE), watts - allowed, 0.0)


def _comply_s(watts: NDArray[np.float64], budget: BudgetSteps | None, end_s: float) -> float | None:
    if budget is None:
        return None
    longest: float | None = None
    for (_, before), (t_s, after) in pairwise(budget.steps):
        if after >= before or t_s >= end_s:
            continue
        first = int(t_s / WINDOW_S)
        under = np.flatnonzero(watts[first:] <= after / 1000 * (1 + TOLERANCE))
        took_s = (float(under[0]) + 1) * WINDOW_S if len(under) else float("inf")
        longest = took_s if longest is None else max(longest, took_s)
    return longest
