"""The optimiser against an exact answer: 500 random sites of up to six deployments, and what a site at scale costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import pytest

from planner.core.allocation.optimiser.solve import allocate
from planner.domain.demand import Allocation, DeploymentDemand, SiteLimits
from planner.domain.weights import DEFAULT
from tests.unit.planner.core.allocation.optimiser import milp
from tests.unit.planner.core.allocation.optimiser.instances import instance

INSTANCES, PARTS = 500, 20
MEAN_GAP, WORST_GAP = 0.01, 0.03


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_within_one_percent_of_exact_on_average_and_three_at_worst(part: int) -> None:
    gaps = {}
    for seed in range(part, INSTANCES, PARTS):
        demands, limits = instance(seed)
        least = milp.least(demands, limits, DEFAULT, gap=1e-5)
        answer = allocate(demands, limits)
        assert _fits(demands, limits, answer), seed
        if least is not None:
            gaps[seed] = (milp.value(demands, answer, DEFAULT) - least) / least
    assert len(gaps) == INSTANCES // PARTS, "every instance has an answer: its floors fit"
    assert min(gaps.values()) > -1e-4, "nothing is better than exact: the two state different problems"
    assert statistics.mean(gaps.values()) <= MEAN_GAP, gaps
    assert max(gaps.values()) <= WORST_GAP, gaps


def test_one_deployment_is_exact() -> None:
    for seed in range(30):
        demands, limits = instance(seed, deployments=1)
        least = milp.least(demands, limits, DEFAULT)
        assert least is not None
        assert milp.value(demands, allocate(demands, limits), DEFAULT) == pytest.approx(least, rel=2e-6), seed


@pytest.mark.parametrize("tightness", [(1.2, 1.3), (0.7, 0.8), (0.4, 0.5)])
def test_a_site_of_a_hundred_deployments_is_solved_within_a_tick(tightness: tuple[float, float]) -> None:
    demands, limits = instance(1, deployments=100, most=51, tightness=tightness)
    times = []
    for _ in range(3):
        start = time.process_time()
        answer = allocate(demands, limits)
        times.append(time.process_time() - start)
    assert _fits(demands, limits, answer)
    # 60 ms are measured on an idle core; shared machines get room.
    assert min(times) < 0.4, times


def _fits(demands: Sequence[DeploymentDemand], limits: SiteLimits, answer: Allocation) -> bool:
    spent = gpus = 0
    for demand in demands:
        own = 0
        for name, pool in demand.pools.items():
            grant = answer.pools[demand.deployment, name]
            own += grant.replicas * pool.gpus_per_replica
            spent += grant.replicas * pool.gpus_per_replica * grant.cap_mw
        if demand.max_gpus is not None and own > demand.max_gpus:
            return False
        gpus += own
    idle = (limits.gpus - gpus) * limits.reserve_mw_per_idle_gpu
    return gpus <= limits.gpus and spent + idle <= limits.budget_mw
