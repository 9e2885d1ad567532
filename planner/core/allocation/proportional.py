"""The published cut: where the workers at their watts exceed the budget, every pool keeps the same share of its count.

``int(n * budget / required)``, the rule of the power-aware planner guide, beside the joint choice of counts and caps.
It considers only counts and watts: it may leave one pool without a replica, and floors are applied after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.core.allocation.closed_form import grant
from planner.domain.demand import Allocation, DeploymentDemand, PoolDemand, PoolGrant, SiteLimits
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.plan import Limited, PowerCut
from planner.domain.reasons import ReasonCode


def share(counts: Mapping[PoolId, int], required: float, budget: float) -> dict[PoolId, int]:
    """``int(n * (budget / required))`` of each count, in this order of operations; all of them where they fit."""
    if required <= budget:
        return dict(counts)
    factor = budget / required
    return {name: int(count * factor) for name, count in counts.items()}


def allocate(demands: Sequence[DeploymentDemand], limits: SiteLimits) -> Allocation:
    """Counts by the published cut, each replica counted with the highest cap of its pool; caps within that.

    A demand asks for ``wanted`` replicas of each pool within its counts. Where idle GPUs are charged too, their parked
    caps are taken off the budget and off the watts of each replica.
    """
    asked = {demand.deployment: {name: _asked(pool) for name, pool in demand.pools.items()} for demand in demands}
    parked_mw = limits.reserve_mw_per_idle_gpu * limits.gpus
    required_mw = sum(
        [
            asked[demand.deployment][name] * pool.gpus_per_replica * _above_parked_mw(pool, limits)
            for demand in demands
            for name, pool in demand.pools.items()
        ]
    )
    budget_mw = max(0, limits.budget_mw - parked_mw)
    pools: dict[tuple[DeploymentId, PoolId], PoolGrant] = {}
    shortfall: dict[DeploymentId, float] = {}
    cuts: dict[DeploymentId, PowerCut] = {}
    for demand in demands:
        before = asked[demand.deployment]
        after = share(before, required_mw, budget_mw)
        if required_mw > budget_mw:
            cuts[demand.deployment] = PowerCut(required_mw + parked_mw, limits.budget_mw, before, after)
        good = 1.0
        for name, pool in demand.pools.items():
            given = _grant(pool, after[name], before[name])
            pools[demand.deployment, name] = given
            good *= given.good
        shortfall[demand.deployment] = max(0.0, 1.0 - good)
    return Allocation(pools, shortfall, cuts=cuts)


def _asked(pool: PoolDemand) -> int:
    return max(pool.min_replicas, min(pool.wanted, pool.max_replicas))


def _above_parked_mw(pool: PoolDemand, limits: SiteLimits) -> int:
    return max(0, pool.curve.max_mw - limits.reserve_mw_per_idle_gpu)


def _grant(pool: PoolDemand, count: int, before: int) -> PoolGrant:
    """The cap for ``count`` replicas, and the link that states what was cut."""
    index = min(max(0, count - pool.min_replicas), len(pool.required_speed) - 1)
    arriving = (pool.arriving_speed[index],) if pool.arriving_speed else ()
    one = replace(
        pool,
        min_replicas=count,
        required_speed=(pool.required_speed[index],),
        utilisation=(pool.utilisation[index],),
        arriving_speed=arriving,
    )
    given = grant(one)
    if count == before:
        return given
    text = f"{before} {pool.pool} replicas at {pool.curve.max_mw / 1000:g} W a GPU cut in proportion to the watts"
    return replace(given, chain=(Limited(count, ReasonCode.POWER_BUDGET, text),))
