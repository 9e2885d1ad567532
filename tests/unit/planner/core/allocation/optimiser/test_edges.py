"""Where the ordinary problem ends: nothing asked, curves between steps, floors that do not fit, three stages."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from planner.adapters.power_priors import Phase, curve, gpu
from planner.core.allocation.optimiser.shares import share
from planner.core.allocation.optimiser.solve import allocate
from planner.domain.demand import DeploymentDemand, PoolDemand, SiteLimits
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.pool import Role
from planner.domain.reasons import ReasonCode
from planner.domain.units import Milliwatts

SITE = SiteId("row-1")
LAW = curve(gpu("h100"), Phase.PREFILL)
PREFILL, DECODE, THIRD = PoolId("prefill"), PoolId("decode"), PoolId("encode")


def pool(name: PoolId, load: float, *, least: int = 1, most: int = 12) -> PoolDemand:
    counts = range(least, most + 1)
    return PoolDemand(
        pool=name,
        role=Role.DECODE if name == DECODE else Role.PREFILL,
        gpus_per_replica=1,
        current_replicas=least,
        min_replicas=least,
        required_speed=tuple(load / n for n in counts),
        utilisation=tuple(min(1.0, load / n) for n in counts),
        curve=LAW,
        wanted=max(least, round(load)),
    )


def deployment(name: str, *pools: PoolDemand, priority: int = 0, max_gpus: int | None = None) -> DeploymentDemand:
    return DeploymentDemand(DeploymentId(name), SITE, {p.pool: p for p in pools}, priority, max_gpus)


def limits(watts: float, gpus: int, reserve_watts: float = 0.0) -> SiteLimits:
    return SiteLimits(SITE, Milliwatts(round(watts * 1000)), gpus, Milliwatts(round(reserve_watts * 1000)))


def test_nothing_asked_is_nothing_granted() -> None:
    assert allocate([], limits(1000, 8)).pools == {}
    assert allocate([deployment("d")], limits(1000, 8)).shortfall == {"d": 0.0}


@pytest.mark.parametrize("members", [1, 2])
def test_a_curve_that_ends_between_two_steps_is_used_up_to_the_step_below(members: int) -> None:
    law = replace(LAW, p_u_mw=698_000, max_mw=699_000)
    asked = [deployment(f"d{i}", replace(pool(PREFILL, 4.0, most=4), curve=law)) for i in range(members)]
    answer = allocate(asked, limits(100_000, 100))
    for grant in answer.pools.values():
        assert grant.replicas == 4
        assert grant.setpoint.cap_mw in (690_000, 695_000), "one step less makes as many good, to a fifth of a percent"
        assert 0.98 < grant.speed < 1
    assert all(0 < lost < 0.03 for lost in answer.shortfall.values())


def test_idle_gpus_keep_their_reserve() -> None:
    asked = [deployment("d", pool(PREFILL, 4.0))]
    alone = allocate(asked, limits(4 * 620, 4, 200)).pools[DeploymentId("d"), PREFILL]
    beside = allocate(asked, limits(4 * 620, 8, 200)).pools[DeploymentId("d"), PREFILL]
    assert (alone.replicas, alone.speed) == (4, 1.0)
    assert beside.replicas * beside.setpoint.cap_mw + (8 - beside.replicas) * 200_000 <= 4 * 620_000
    assert beside.speed * beside.replicas < alone.speed * alone.replicas
    assert {link.reason for link in beside.chain} == {ReasonCode.POWER_BUDGET, ReasonCode.SHORTFALL}


def test_minimums_that_do_not_fit_cost_the_lower_class_its_replicas_first() -> None:
    low = deployment("low", pool(PREFILL, 3.0, least=2), pool(DECODE, 3.0, least=2))
    high = deployment("high", pool(PREFILL, 3.0, least=2), pool(DECODE, 3.0, least=2), priority=1)
    answer = allocate([low, high], limits(5 * 200, 40))
    counts = {key: grant.replicas for key, grant in answer.pools.items()}
    assert min(counts[high.deployment, PREFILL], counts[high.deployment, DECODE]) >= 2
    assert counts[low.deployment, PREFILL] == counts[low.deployment, DECODE] == 0, "half an engine serves no request"
    assert answer.shortfall[low.deployment] == 1.0
    assert ReasonCode.SHORTFALL in {link.reason for link in answer.pools[low.deployment, PREFILL].chain}


def test_no_watts_at_all_leaves_no_replica() -> None:
    answer = allocate([deployment("d", pool(PREFILL, 3.0), pool(DECODE, 3.0))], limits(0, 8, 200))
    assert {grant.replicas for grant in answer.pools.values()} == {0}


def test_three_stages_share_a_deployments_own_gpus() -> None:
    asked = deployment("d", pool(PREFILL, 4.0), pool(DECODE, 4.0), pool(THIRD, 4.0), max_gpus=9)
    answer = allocate([asked], limits(100_000, 64))
    counts = {name: grant.replicas for (_, name), grant in answer.pools.items()}
    assert sum(counts.values()) == 9
    assert counts[DECODE] == 4, "decode is a cliff, the others a slope"
    made = {name: share(Role.DECODE if name == DECODE else Role.PREFILL, n / 4.0, 1.0) for name, n in counts.items()}
    assert 1 - answer.shortfall[asked.deployment] == pytest.approx(math.prod(made.values()), rel=0.01)
    assert all("may hold 9 GPUs" in grant.chain[0].sentence for grant in answer.pools.values())


def test_more_replicas_than_wanted_are_reported_as_what_they_stand_for() -> None:
    (grant,) = allocate([deployment("d", pool(PREFILL, 2.0, most=6))], limits(1900, 6, 200)).pools.values()
    assert grant.replicas == 3
    assert [link.sentence for link in grant.chain] == [
        "3 prefill replicas at 385 W a GPU in place of 2 at full power: 1900 W are all that GPUs may draw"
    ]


def test_prompts_and_answers_of_one_pool_have_each_their_own_need() -> None:
    plain = replace(pool(PoolId("all"), 4.0, most=4), role=Role.AGGREGATED)
    both = {}
    for name, one in {"plain": plain, "easy": replace(plain, prompt_speed=(2.0, 1.0, 0.67, 0.5))}.items():
        answer = allocate([deployment("d", one)], limits(4 * 500, 4))
        (grant,) = answer.pools.values()
        assert grant.replicas == 4
        both[name] = grant
    speed_ = both["easy"].speed
    assert both["easy"].good == pytest.approx(share(Role.PREFILL, speed_, 0.5) * share(Role.DECODE, speed_, 1.0))
    assert both["plain"].good == pytest.approx(
        share(Role.PREFILL, both["plain"].speed, 1.0) * share(Role.DECODE, both["plain"].speed, 1.0)
    )
    assert both["easy"].good > both["plain"].good


def test_an_aggregated_pools_answers_may_need_less_than_was_sized() -> None:
    asked = replace(pool(PoolId("all"), 4.0, most=4), role=Role.AGGREGATED)
    known = replace(asked, arriving_speed=tuple(0.8 * speed for speed in asked.required_speed))
    (grant,) = allocate([deployment("d", known)], limits(4 * 500, 4)).pools.values()
    answers = share(Role.DECODE, grant.speed, 0.8 * math.exp(2 * 0.06))
    assert grant.good == pytest.approx(share(Role.PREFILL, grant.speed, 1.0) * answers)


def test_a_replica_that_is_to_start_counts_for_the_time_in_which_it_serves() -> None:
    """Eight GPUs run. One more for answers makes them good, and one less for prompts makes those a little late."""
    running = {PREFILL: (5, pool(PREFILL, 4.2, most=8)), DECODE: (3, pool(DECODE, 3.15, most=8))}
    stages = [replace(one, current_replicas=now) for now, one in running.values()]
    asked = replace(deployment("d", *stages), max_gpus=8)
    at_once = {name: grant.replicas for (_, name), grant in allocate([asked], limits(100_000, 8)).pools.items()}
    slowly = replace(asked, starting_part=0.95)
    late = {name: grant.replicas for (_, name), grant in allocate([slowly], limits(100_000, 8)).pools.items()}
    assert (at_once, late) == ({PREFILL: 4, DECODE: 4}, {PREFILL: 5, DECODE: 3})


def test_pools_that_only_help_together_are_started_together() -> None:
    """By the mean of products: pool by pool, the growth of each would be worth nothing without the other's."""
    stages = [replace(pool(name, 4.0, most=4), current_replicas=2) for name in (PREFILL, DECODE)]
    asked = replace(deployment("d", *stages), starting_part=0.6)
    assert [grant.replicas for grant in allocate([asked], limits(6 * 620, 8)).pools.values()] == [4, 4]


def test_short_of_watts_a_kept_replica_is_capped_below_the_useful_cap_and_never_to_save_energy() -> None:
    idle = replace(pool(PREFILL, 1.0, most=4), min_replicas=4, current_replicas=4)
    idle = replace(idle, required_speed=(0.25,), utilisation=(0.25,))
    busy = replace(pool(DECODE, 4.0, most=4), min_replicas=4, current_replicas=4)
    busy = replace(busy, required_speed=(1.0,), utilisation=(1.0,))
    caps = {}
    for watts in (2900, 8 * 620):
        grants = allocate([deployment("d", idle, busy)], limits(watts, 8)).pools
        caps[watts] = {name: grant.setpoint.cap_mw for (_, name), grant in grants.items()}
    assert 200_000 <= caps[2900][PREFILL] < idle.curve.useful_mw < caps[2900][DECODE]
    assert caps[8 * 620][PREFILL] == idle.curve.useful_mw
