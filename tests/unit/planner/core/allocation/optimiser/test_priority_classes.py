"""Classes that are shed first: no load of a higher class is lost that shedding a lower one could have carried."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.adapters.power_priors import Phase, curve, gpu
from planner.core.allocation.optimiser import priority_classes
from planner.core.allocation.optimiser.priority_classes import allocate
from planner.core.allocation.optimiser.problem import least_cap_mw
from planner.core.allocation.optimiser.solve import allocate as jointly
from planner.domain.demand import Allocation, DeploymentDemand, PoolDemand, SiteLimits
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.pool import Role
from planner.domain.units import Milliwatts
from tests.unit.planner.core.allocation.optimiser.instances import SITE, deployment, pool, site

PARKED = SiteLimits(SITE, Milliwatts(0), 0, Milliwatts(100_000))
HIGH, LOW = DeploymentId("high"), DeploymentId("low")
ONLY = PoolId("aggregated")
LAW = curve(gpu("h100"), Phase.PREFILL)
RESERVE_MW = 200_000
A_CAP_STEP = 2e-3
"""Share of a load that one step of 5 W is worth."""


def lone(name: DeploymentId, load: float, priority: int, most: int, size: int) -> DeploymentDemand:
    need = tuple(load / n for n in range(1, most + 1))
    wanted = next(n for n, speed in enumerate(need, 1) if speed <= 1)
    busy = tuple(min(1.0, 0.8 * speed) for speed in need)
    only = PoolDemand(ONLY, Role.AGGREGATED, size, 1, 1, need, busy, LAW, wanted)
    return DeploymentDemand(name, SITE, {ONLY: only}, priority)


def one(rng: random.Random, name: DeploymentId, most: int, size: int, priority: int) -> DeploymentDemand:
    roles = rng.choice([(Role.AGGREGATED,), (Role.PREFILL, Role.DECODE)])
    pools = [pool(rng, role, gpu_type=rng.choice(["a100", "b200"]), most=most, size=size) for role in roles]
    return DeploymentDemand(name, SITE, {p.pool: p for p in pools}, priority)


def beside_minimums(high: DeploymentDemand, low: list[DeploymentDemand], limits: SiteLimits) -> float:
    """The high class's shortfall where the low one has its floors and nothing else."""
    held = [(p.min_replicas * p.gpus_per_replica, least_cap_mw(p, limits)) for d in low for p in d.pools.values()]
    left = replace(
        limits,
        budget_mw=Milliwatts(limits.budget_mw - sum(gpus * cap for gpus, cap in held)),
        gpus=limits.gpus - sum(gpus for gpus, _ in held),
    )
    return jointly([high], left).shortfall[high.deployment]


def fits(found: Allocation, demands: list[DeploymentDemand], limits: SiteLimits) -> bool:
    held = [
        (p.gpus_per_replica * found.pools[d.deployment, name].replicas, found.pools[d.deployment, name].setpoint.cap_mw)
        for d in demands
        for name, p in d.pools.items()
    ]
    gpus = sum(count for count, _ in held)
    spent = sum(count * cap for count, cap in held) + (limits.gpus - gpus) * limits.reserve_mw_per_idle_gpu
    return gpus <= limits.gpus and spent <= limits.budget_mw


@pytest.mark.parametrize("short", [0.002, 0.01, 0.03, 0.06, 0.2])
def test_a_tiny_high_class_takes_what_it_needs_from_huge_replicas_of_a_low_one(short: float) -> None:
    """All but ``short`` of its load fits on its floor; the rest needs a GPU of sixteen that a low replica holds."""
    demands = [lone(HIGH, 1 / (1 - short), 1, 3, 1), lone(LOW, 9.5, 0, 10, 16)]
    limits = SiteLimits(SITE, Milliwatts(161 * LAW.max_mw), 161, Milliwatts(RESERVE_MW))
    found = allocate(demands, limits)
    assert found.shortfall[HIGH] <= priority_classes.ALIKE
    assert found.shortfall[LOW] > 0.05
    assert fits(found, demands, limits)


def test_the_factor_alone_would_give_way() -> None:
    """Why classes are answered in order: the joint answer slows the high class by 3 % for one low replica."""
    demands = [lone(HIGH, 1 / 0.97, 1, 3, 1), lone(LOW, 9.5, 0, 10, 16)]
    limits = SiteLimits(SITE, Milliwatts(161 * LAW.max_mw), 161, Milliwatts(RESERVE_MW))
    assert jointly(demands, limits).shortfall[HIGH] > 0.05


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([(0.02, 0.3), (0.1, 0.9)]))
def test_the_high_class_loses_only_what_minimums_below_take(seed: int, tightness: tuple[float, float]) -> None:
    rng = random.Random(seed)
    high = one(rng, HIGH, rng.choice([2, 3, 6]), rng.choice([1, 8]), 1)
    low = [one(rng, DeploymentId(f"low-{i}"), rng.choice([4, 12, 60]), rng.choice([1, 8, 16]), 0) for i in range(2)]
    demands = [*low, high]
    limits = site(rng, demands, tightness)
    found = allocate(demands, limits)
    assert found.shortfall[HIGH] <= beside_minimums(high, low, limits) + A_CAP_STEP
    assert fits(found, demands, limits)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100_000))
def test_three_classes_fit_and_the_order_never_costs_a_higher_one(seed: int) -> None:
    rng = random.Random(seed)
    demands = [replace(deployment(rng, i, 6), priority=i % 3) for i in range(5)]
    limits = site(rng, demands, (0.05, 0.8))
    found, joint = allocate(demands, limits), jointly(demands, limits)
    assert fits(found, demands, limits)
    top = [d for d in demands if d.priority == 2]
    assert sum(found.shortfall[d.deployment] for d in top) <= sum(joint.shortfall[d.deployment] for d in top) + 0.02
    assert set(found.pools) == set(joint.pools)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100_000))
def test_where_minimums_do_not_fit_the_low_class_goes_first(seed: int) -> None:
    rng = random.Random(seed)
    high, low = one(rng, HIGH, 3, 1, 1), one(rng, LOW, 12, 8, 0)
    needed = sum(p.min_replicas * p.gpus_per_replica * least_cap_mw(p, PARKED) for p in high.pools.values())
    gpus = sum(p.gpus_per_replica for d in (high, low) for p in d.pools.values())
    limits = replace(PARKED, budget_mw=Milliwatts(needed + (gpus - len(high.pools)) * 100_000), gpus=gpus)
    found = allocate([low, high], limits)
    assert fits(found, [low, high], limits)
    assert all(found.pools[HIGH, name].replicas >= 1 for name in high.pools)


def test_one_class_is_answered_jointly() -> None:
    rng = random.Random(4)
    demands = [replace(deployment(rng, i, 6), priority=7) for i in range(4)]
    limits = site(rng, demands, (0.1, 0.5))
    assert allocate(demands, limits) == jointly(demands, limits)
