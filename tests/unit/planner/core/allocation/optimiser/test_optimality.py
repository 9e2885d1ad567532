"""The optimiser against every combination, on 300 random sites of up to three deployments; a site at scale in time."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from planner.core.allocation.optimiser.solve import allocate
from planner.domain.demand import DEFAULT_WEIGHTS, Allocation, DeploymentDemand, PoolDemand, SiteLimits
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.pool import Role
from tests.unit.planner.core.allocation.optimiser import exhaustive
from tests.unit.planner.core.allocation.optimiser.instances import GPU_TYPES, SITE, instance, pool, site

ALIKE = 0.002
INSTANCES, PARTS = 300, 20
MEAN_GAP, WORST_GAP = 0.003, 0.025
"""Relative loss of good requests: differences of ``ln(score)``, deployments weighed by their GPUs and classes. One of
the 300 sites loses 2.7 %: three deployments would have to move at once. All others are within 1 %."""


def scarce(seed: int, deployments: int | None = None) -> tuple[list[DeploymentDemand], SiteLimits, Allocation] | None:
    """A site where somebody goes short, with its answer; None where all is carried with speed to spare."""
    demands, limits = instance(seed, deployments=deployments, most=4, tightness=(0.2, 1.0))
    answer = allocate(demands, limits)
    return (demands, limits, answer) if any(answer.shortfall.values()) else None


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.nightly if part % 4 else ()) for part in range(PARTS)]
)
def test_within_one_percent_of_every_combination(part: int) -> None:
    gaps = {}
    for seed in range(part, INSTANCES, PARTS):
        if (found := scarce(seed, 1 + seed % 3)) is None:
            continue
        demands, limits, answer = found
        assert _fits(demands, limits, answer), seed
        best = exhaustive.most(demands, limits, DEFAULT_WEIGHTS)
        weight = sum(exhaustive.worths(demands, DEFAULT_WEIGHTS))
        gaps[seed] = (best - exhaustive.value(demands, answer, DEFAULT_WEIGHTS)) / weight
    assert len(gaps) >= 5
    # Options looked at alone are equal within this: cost decides between them.
    assert min(gaps.values()) > -1e-4, "nothing is better than exhaustive: the two state different problems"
    assert statistics.mean(gaps.values()) <= ALIKE + MEAN_GAP, gaps
    assert max(gaps.values()) <= ALIKE + WORST_GAP, gaps


def test_one_deployment_is_exact() -> None:
    looked_at = 0
    for seed in range(40):
        if (found := scarce(seed, 1)) is None:
            continue
        demands, limits, answer = found
        best, weight = (
            exhaustive.most(demands, limits, DEFAULT_WEIGHTS),
            sum(exhaustive.worths(demands, DEFAULT_WEIGHTS)),
        )
        assert -1e-4 <= (best - exhaustive.value(demands, answer, DEFAULT_WEIGHTS)) / weight <= ALIKE + 1e-4, seed
        looked_at += 1
    assert looked_at >= 15


def test_among_equal_shares_the_cheapest_is_taken() -> None:
    for seed in range(25):
        if (found := scarce(seed, 1)) is None or len(found[0][0].pools) > 1:
            continue
        (demand,), limits, answer = found
        ((name, pool),) = demand.pools.items()
        grant = answer.pools[demand.deployment, name]
        free = limits.budget_mw - limits.reserve_mw_per_idle_gpu * limits.gpus
        fit = [
            o
            for o in exhaustive.options(pool, DEFAULT_WEIGHTS, limits.reserve_mw_per_idle_gpu)
            if o.count * pool.gpus_per_replica * (o.cap_mw - limits.reserve_mw_per_idle_gpu) <= free
            and o.count * pool.gpus_per_replica <= min(limits.gpus, demand.max_gpus or limits.gpus)
        ]
        enough = max(exhaustive.score(demand, [o]) for o in fit) * (1 - ALIKE)
        least = min(o.cost for o in fit if exhaustive.score(demand, [o]) >= enough * (1 + 1e-6))
        taken = exhaustive.option(pool, grant.replicas, grant.setpoint.cap_mw, DEFAULT_WEIGHTS)
        assert taken.cost <= least + 1e-6, seed


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
        for name, asked in demand.pools.items():
            grant = answer.pools[demand.deployment, name]
            own += grant.replicas * asked.gpus_per_replica
            spent += grant.replicas * asked.gpus_per_replica * grant.setpoint.cap_mw
        if demand.max_gpus is not None and own > demand.max_gpus:
            return False
        gpus += own
    idle = (limits.gpus - gpus) * limits.reserve_mw_per_idle_gpu
    return gpus <= limits.gpus and spent + idle <= limits.budget_mw


@pytest.mark.long
def test_three_pools_come_close_to_every_combination() -> None:
    gaps = []
    for seed in range(10):
        rng = random.Random(seed)
        pools = [pool(rng, role, gpu_type="h100", most=2, size=1) for role in (Role.PREFILL, Role.DECODE, Role.PREFILL)]
        named = {PoolId(f"p{i}"): replace(one, pool=PoolId(f"p{i}")) for i, one in enumerate(pools)}
        demand = DeploymentDemand(DeploymentId("d"), SITE, named)
        limits = site(rng, [demand], (0.2, 0.6))
        answer = allocate([demand], limits)
        assert _fits([demand], limits, answer)
        if any(answer.shortfall.values()):
            best = exhaustive.most([demand], limits, DEFAULT_WEIGHTS)
            (worth,) = exhaustive.worths([demand], DEFAULT_WEIGHTS)
            gaps.append((best - exhaustive.value([demand], answer, DEFAULT_WEIGHTS)) / worth)
    assert len(gaps) >= 5
    assert min(gaps) > -1e-4
    assert statistics.mean(gaps) <= ALIKE + MEAN_GAP, gaps
    assert max(gaps) <= ALIKE + WORST_GAP, gaps


@pytest.mark.long
def test_several_deployments_of_three_pools_are_decided_by_share_too() -> None:
    """By the sum of their pools' worth at one price, these sites sacrificed a deployment that had a good answer.

    They stay at useful caps (one of the two loses 9 % of its score by that).
    """
    for seed in (11, 17):
        rng, demands = random.Random(seed), []
        for i in range(2):
            gpu_type = rng.choice(GPU_TYPES)
            three = i == 0 or rng.random() < 0.5
            roles = (Role.AGGREGATED, Role.PREFILL, Role.DECODE) if three else (Role.PREFILL, Role.DECODE)
            pools = [pool(rng, role, gpu_type=gpu_type, most=3, size=rng.choice([1, 1, 2])) for role in roles]
            demands.append(DeploymentDemand(DeploymentId(f"d{i}"), SITE, {one.pool: one for one in pools}))
        limits = site(rng, demands, (0.2, 0.6))
        answer = allocate(demands, limits)
        assert _fits(demands, limits, answer)
        assert any(answer.shortfall.values()), seed
        best = exhaustive.most(demands, limits, DEFAULT_WEIGHTS, useful_only=True)
        gap = (best - exhaustive.value(demands, answer, DEFAULT_WEIGHTS)) / sum(
            exhaustive.worths(demands, DEFAULT_WEIGHTS)
        )
        assert gap <= ALIKE + WORST_GAP, (seed, gap)


def test_one_deployment_with_watts_to_spare_takes_the_cheapest_counts_of_all() -> None:
    looked_at = 0
    for seed in range(60):
        (demand,), limits = instance(seed, deployments=1, most=4, tightness=(0.7, 1.1))
        answer = allocate([demand], limits)
        if any(answer.shortfall.values()):
            continue
        free = limits.budget_mw - limits.reserve_mw_per_idle_gpu * limits.gpus
        fit = []
        for taken in itertools.product(*(_carrying(one) for one in demand.pools.values())):
            gpus = [o.count * p.gpus_per_replica for o, p in zip(taken, demand.pools.values(), strict=True)]
            mw = sum(g * (o.cap_mw - limits.reserve_mw_per_idle_gpu) for g, o in zip(gpus, taken, strict=True))
            if mw <= free and sum(gpus) <= min(limits.gpus, demand.max_gpus or limits.gpus):
                fit.append(sum(o.cost for o in taken))
        grants = [(demand.pools[name], grant) for (_, name), grant in answer.pools.items()]
        ours = sum(exhaustive.option(p, g.replicas, g.setpoint.cap_mw, DEFAULT_WEIGHTS).cost for p, g in grants)
        assert ours <= min(fit) + 1e-6, seed
        looked_at += 1
    assert looked_at >= 10


def _carrying(one: PoolDemand) -> list[exhaustive.Option]:
    """The lowest cap of each count that carries the load."""
    found: dict[int, exhaustive.Option] = {}
    for option in exhaustive.options(one, DEFAULT_WEIGHTS, one.curve.useful_mw):
        if option.carried >= 1.0 - 1e-9 and option.count not in found:
            found[option.count] = option
    return list(found.values())
