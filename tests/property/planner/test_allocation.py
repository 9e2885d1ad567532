"""What every allocation keeps, whatever is asked: limits, floors, order of priority, steps, determinism, monotony."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.adapters.power_priors import Phase, curve, gpu
from planner.core.allocation.optimiser.shares import share
from planner.core.allocation.optimiser.solve import allocate
from planner.core.power.curve import speed
from planner.domain.demand import DEFAULT_WEIGHTS, Allocation, DeploymentDemand, PoolDemand, SiteLimits, Weights
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.pool import Role
from planner.domain.reasons import ReasonCode
from planner.domain.units import Milliwatts
from tests.sizes_of_runs import examples
from tests.unit.planner.core.allocation.optimiser.exhaustive import value, worths
from tests.unit.planner.core.allocation.optimiser.instances import instance

SITE = SiteId("row-1")
ALIKE = 0.002
"""Relative difference of shares below which cost decides."""
EXACT_WITHIN = 0.01
"""Several deployments are solved to within this of the best score, so monotony holds to within it."""


@st.composite
def pools(draw: st.DrawFn, role: Role) -> PoolDemand:
    least = draw(st.integers(0, 3))
    counts = range(least, least + draw(st.integers(1, 8)))
    load = draw(st.floats(0.0, 10.0))
    phase = draw(st.sampled_from(list(Phase)))
    none = 0.0 if load == 0 else math.inf
    return PoolDemand(
        pool=PoolId(role.value),
        role=role,
        gpus_per_replica=draw(st.sampled_from([1, 2, 4, 8])),
        current_replicas=draw(st.integers(0, 12)),
        min_replicas=least,
        required_speed=tuple(load / n if n else none for n in counts),
        utilisation=tuple(min(1.0, load / n) if n else 0.0 for n in counts),
        curve=curve(gpu(draw(st.sampled_from(["a100", "h100", "b200"]))), phase),
        wanted=max(least, math.ceil(load)),
    )


@st.composite
def sites(draw: st.DrawFn) -> tuple[list[DeploymentDemand], SiteLimits]:
    demands = []
    for index in range(draw(st.integers(1, 4))):
        roles = draw(st.sampled_from([(Role.PREFILL, Role.DECODE), (Role.AGGREGATED,)]))
        own = draw(st.none() | st.integers(0, 60))
        members = [draw(pools(role)) for role in roles]
        name, priority = DeploymentId(f"d{index}"), draw(st.integers(-1, 2))
        demands.append(DeploymentDemand(name, SITE, {p.pool: p for p in members}, priority, own))
    gpus = draw(st.integers(0, 80))
    reserve = draw(st.sampled_from([0, 100_000, 200_000]))
    return demands, SiteLimits(SITE, Milliwatts(draw(st.integers(0, 60_000_000))), gpus, Milliwatts(reserve))


def spent(demands: list[DeploymentDemand], limits: SiteLimits, answer: Allocation) -> tuple[int, int]:
    """Milliwatts above the idle reserve, and GPUs."""
    mw = gpus = 0
    for demand in demands:
        for name, pool in demand.pools.items():
            grant = answer.pools[demand.deployment, name]
            gpus += grant.replicas * pool.gpus_per_replica
            mw += grant.replicas * pool.gpus_per_replica * (grant.setpoint.cap_mw - limits.reserve_mw_per_idle_gpu)
    return mw, gpus


@settings(max_examples=examples(50, 150), deadline=None)
@given(sites())
def test_limits_hold_whatever_is_asked(site: tuple[list[DeploymentDemand], SiteLimits]) -> None:
    demands, limits = site
    answer = allocate(demands, limits)
    mw, gpus = spent(demands, limits, answer)
    assert gpus <= limits.gpus
    assert mw <= max(0, limits.budget_mw - limits.reserve_mw_per_idle_gpu * limits.gpus)
    for demand in demands:
        own = sum(answer.pools[demand.deployment, n].replicas * p.gpus_per_replica for n, p in demand.pools.items())
        assert demand.max_gpus is None or own <= demand.max_gpus
        assert 0.0 <= answer.shortfall[demand.deployment] <= 1.0
        for name, pool in demand.pools.items():
            grant = answer.pools[demand.deployment, name]
            assert grant.setpoint.cap_mw % 5_000 == 0
            lowest = min(pool.curve.useful_mw, max(pool.curve.min_mw, limits.reserve_mw_per_idle_gpu))
            assert lowest <= grant.setpoint.cap_mw <= pool.curve.max_mw
            assert any(answer.shortfall.values()) or grant.setpoint.cap_mw >= pool.curve.useful_mw
            assert grant.replicas <= pool.max_replicas
            assert grant.speed == pytest.approx(speed(pool.curve, grant.setpoint.cap_mw))


@settings(max_examples=examples(20, 60), deadline=None)
@given(sites())
def test_the_same_question_has_the_same_answer(site: tuple[list[DeploymentDemand], SiteLimits]) -> None:
    assert allocate(*site) == allocate(*site)


def lost(demands: list[DeploymentDemand], answer: Allocation) -> float:
    """What the answer is short of: 0 where everything is carried with speed to spare."""
    return -value(demands, answer, DEFAULT_WEIGHTS) if any(answer.shortfall.values()) else 0.0


@settings(max_examples=examples(20, 60), deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(1.0, 2.0))
def test_minimums_are_kept_where_they_fit_and_more_watts_never_cost(seed: int, count: int, more: float) -> None:
    demands, limits = instance(seed, deployments=count, tightness=(0.0, 1.0))
    richer = replace(limits, budget_mw=Milliwatts(int(limits.budget_mw * more)))
    poor, rich = allocate(demands, limits), allocate(demands, richer)
    for demand in demands:
        for name, pool in demand.pools.items():
            assert poor.pools[demand.deployment, name].replicas >= pool.min_replicas
    whole = sum(worths(demands, DEFAULT_WEIGHTS))
    tolerance = whole * (ALIKE + (EXACT_WITHIN if count > 1 else 0.0)) + 1e-9
    assert lost(demands, rich) <= lost(demands, poor) + tolerance


@settings(max_examples=examples(20, 60), deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_a_twin_of_higher_priority_never_carries_less(seed: int, tightness: float) -> None:
    demands, limits = instance(seed, deployments=1, tightness=(tightness, tightness))
    low = replace(demands[0], priority=0)
    high = replace(demands[0], deployment=DeploymentId("high"), priority=1)
    both = replace(limits, budget_mw=Milliwatts(limits.budget_mw * 2), gpus=limits.gpus * 2)
    answer = allocate([low, high], both)
    assert answer.shortfall[high.deployment] <= answer.shortfall[low.deployment] + 2 * ALIKE


@settings(max_examples=examples(20, 60), deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_a_shortfall_is_stated_and_has_its_reason(seed: int, count: int) -> None:
    demands, limits = instance(seed, deployments=count, tightness=(0.1, 0.9))
    answer = allocate(demands, limits)
    for demand in demands:
        good, said = 1.0, set()
        for name, pool in demand.pools.items():
            grant = answer.pools[demand.deployment, name]
            need = pool.required_speed[grant.replicas - pool.min_replicas]
            assert grant.good == pytest.approx(share(pool.role, grant.speed, need), abs=1e-4)
            good *= grant.good
            said |= {link.reason for link in grant.chain}
            assert all(link.sentence for link in grant.chain)
        assert answer.shortfall[demand.deployment] in (0.0, pytest.approx(1 - good, abs=1e-9))
        if answer.shortfall[demand.deployment] > 0.006:
            assert ReasonCode.SHORTFALL in said


def _spread(price: float) -> int:
    wide = PoolDemand(
        PoolId("prefill"),
        Role.PREFILL,
        1,
        4,
        1,
        tuple(4.0 / n for n in range(1, 13)),
        tuple(min(1.0, 3.6 / n) for n in range(1, 13)),
        curve(gpu("h100"), Phase.PREFILL),
        4,
    )
    demand = DeploymentDemand(DeploymentId("d"), SITE, {wide.pool: wide})
    answer = allocate(
        [demand], SiteLimits(SITE, Milliwatts(50_000_000), 40, Milliwatts(0)), Weights(gpu=price, churn=0.0)
    )
    return answer.pools[demand.deployment, wide.pool].replicas


def test_cheap_gpus_are_spread_over_at_lower_caps_and_dear_ones_are_not() -> None:
    assert _spread(0.0) > 4
    assert _spread(1000.0) == 4


def test_a_change_that_saves_less_than_it_costs_is_not_made() -> None:
    demands, limits = instance(3, deployments=1, tightness=(1.2, 1.3))
    lazy = allocate(demands, limits, replace(DEFAULT_WEIGHTS, churn=50_000.0))
    for (_, name), grant in lazy.pools.items():
        pool = demands[0].pools[name]
        carries = pool.required_speed[pool.current_replicas - pool.min_replicas] <= 1
        assert not carries or grant.replicas <= max(pool.current_replicas, pool.wanted)


def test_weights_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Weights(energy=-1.0)
    with pytest.raises(ValueError, match="priority"):
        Weights(priority=0.5)


def _by_count(demand: DeploymentDemand, answer: Allocation) -> dict[PoolId, int]:
    return {name: answer.pools[demand.deployment, name].replicas for name in demand.pools}


@settings(max_examples=examples(20, 60), deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 1.0))
def test_uniform_caps_are_never_predicted_to_be_better(seed: int, tightness: float) -> None:
    """Uniform caps of the counts that were chosen are among the options: what they win, the prediction has wrong."""
    (demand,), limits = instance(seed, deployments=1, tightness=(tightness, tightness))
    answer = allocate([demand], limits)
    counts = _by_count(demand, answer)
    gpus = sum(counts[name] * pool.gpus_per_replica for name, pool in demand.pools.items())
    even = (limits.budget_mw - (limits.gpus - gpus) * limits.reserve_mw_per_idle_gpu) // gpus // 5_000 * 5_000
    good = 1.0
    for name, pool in demand.pools.items():
        if even < pool.curve.useful_mw:
            return
        need = pool.required_speed[counts[name] - pool.min_replicas]
        good *= share(pool.role, speed(pool.curve, min(even, pool.curve.max_mw)), need)
    ours = math.prod(answer.pools[demand.deployment, name].good for name in demand.pools)
    # The little that carrying is worth can decide where nothing is good.
    assert ours >= good * (1 - ALIKE) - 0.05


@settings(max_examples=examples(20, 60), deadline=None)
@given(
    st.sampled_from([Role.PREFILL, Role.DECODE, Role.AGGREGATED]),
    st.floats(0.01, 4.0),
    st.floats(0.01, 1.0),
    st.floats(1.0, 2.0),
)
def test_a_predicted_share_lies_between_nothing_and_all_and_rises_with_speed(
    role: Role, need: float, slow: float, faster: float
) -> None:
    low, high = share(role, slow, need), share(role, slow * faster, need)
    assert 0.0 <= low <= high <= 1.0
    assert share(role, slow, 0.0) == 1.0
    assert share(role, slow, math.inf) == 0.0


@settings(max_examples=examples(15, 40), deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 0.9))
def test_a_fleet_is_not_given_up_for_less_than_it_is_worth(seed: int, tightness: float) -> None:
    """A count falls only where that makes noticeably more requests good, or where it does not fit."""
    (demand,), limits = instance(seed, deployments=1, tightness=(tightness, tightness))
    free = allocate([demand], limits)
    kept = {
        name: replace(pool, current_replicas=free.pools[demand.deployment, name].replicas)
        for name, pool in demand.pools.items()
    }
    again = replace(demand, pools=kept)
    assert _by_count(again, allocate([again], limits)) == _by_count(demand, free)


@settings(max_examples=examples(50, 500), deadline=None)
@given(st.sampled_from([Role.PREFILL, Role.DECODE]).flatmap(pools))
def test_no_replica_starts_so_that_caps_may_be_lower(asked: PoolDemand) -> None:
    """While watts suffice: what a lower cap saves, the replica that makes up for it draws and costs."""
    ample = SiteLimits(SITE, Milliwatts(10**10), 10_000, Milliwatts(asked.curve.min_mw))
    demand = DeploymentDemand(DeploymentId("d"), SITE, {asked.pool: replace(asked, spare_speed=1.3)})
    (grant,) = allocate([demand], ample).pools.values()
    assert grant.replicas <= max(asked.wanted, asked.current_replicas, asked.min_replicas)
