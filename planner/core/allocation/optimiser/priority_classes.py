"""Priority classes: no load of a higher class is shed that shedding a lower one could have carried.

Owns the order of classes. The joint answer weighs classes by a factor, which is not enough where a large low class
gains much from a little of a high one. Where a higher class comes out short, the classes are solved again one by one
from the top, and that answer is taken if it sheds less of a higher class. Must never spend what the classes below need
for their floors while all floors fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.core.allocation.optimiser.problem import least_cap_mw, minimums_fit
from planner.core.allocation.optimiser.solve import allocate as jointly
from planner.domain.demand import DEFAULT_WEIGHTS, Allocation, DeploymentDemand, PoolGrant, SiteLimits, Weights
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.units import Milliwatts

ALIKE = 1e-3
"""Share of a class's load: a smaller difference comes from cap steps, not from a choice between classes."""


def allocate(demands: Sequence[DeploymentDemand], limits: SiteLimits, weights: Weights = DEFAULT_WEIGHTS) -> Allocation:
    """The joint answer, or the one class by class where a higher class loses by the joint one."""
    found = jointly(demands, limits, weights)
    ranks = sorted({demand.priority for demand in demands}, reverse=True)
    if not any(
        found.shortfall.get(demand.deployment, 0.0) > ALIKE for demand in demands if demand.priority > ranks[-1]
    ):
        return found
    return _class_by_class(demands, ranks, limits, weights, found) or found


def _lost(found: Allocation, demands: Sequence[DeploymentDemand]) -> float:
    """The share of one class's load that is shed, deployments weighed by the GPUs that they want."""
    sizes = {
        d.deployment: sum(max(1, pool.wanted) * pool.gpus_per_replica for pool in d.pools.values())
        for d in demands
        if d.pools
    }
    whole = sum(sizes.values())
    return sum(found.shortfall.get(name, 0.0) * size for name, size in sizes.items()) / max(1, whole)


def _class_by_class(
    demands: Sequence[DeploymentDemand],
    ranks: Sequence[int],
    limits: SiteLimits,
    weights: Weights,
    joint: Allocation,
) -> Allocation | None:
    """Classes from the top, each with what those above left. None where no class but the lowest is better off."""
    keep = minimums_fit([demand for demand in demands if demand.pools], limits)
    total, left, better = Allocation(), limits, False
    for below, rank in zip(range(len(ranks) - 1, -1, -1), ranks, strict=True):
        if below == 0 and not better:
            return None
        floors = [demand for demand in demands if demand.priority < rank] if keep else []
        own = [demand for demand in demands if demand.priority == rank]
        # A class keeps the worth it has beside the others; otherwise a GPU may cost more than its shortfall.
        worth = replace(weights, sla=weights.sla * weights.priority**below)
        found = jointly(own, _less(left, *_held_at_minimum(floors, limits)), worth)
        gained = _lost(joint, own) - _lost(found, own)
        if not better and gained < -ALIKE:
            return None
        better = better or gained > ALIKE
        left = _less(left, *_spent(own, found.pools))
        total = replace(
            found,
            pools={**total.pools, **found.pools},
            shortfall={**total.shortfall, **found.shortfall},
        )
    return total


def _less(limits: SiteLimits, mw: int, gpus: int) -> SiteLimits:
    return replace(limits, budget_mw=Milliwatts(max(0, limits.budget_mw - mw)), gpus=max(0, limits.gpus - gpus))


def _held_at_minimum(demands: Sequence[DeploymentDemand], limits: SiteLimits) -> tuple[int, int]:
    """Milliwatts and GPUs of all minimum counts at the lowest caps of their cards."""
    pools = [pool for demand in demands for pool in demand.pools.values()]
    held = [pool.min_replicas * pool.gpus_per_replica for pool in pools]
    return sum(gpus * least_cap_mw(pool, limits) for gpus, pool in zip(held, pools, strict=True)), sum(held)


def _spent(
    demands: Sequence[DeploymentDemand], grants: Mapping[tuple[DeploymentId, PoolId], PoolGrant]
) -> tuple[int, int]:
    mw = gpus = 0
    for demand in demands:
        for name, pool in demand.pools.items():
            grant = grants[demand.deployment, name]
            held = grant.replicas * pool.gpus_per_replica
            mw, gpus = mw + held * grant.setpoint.cap_mw, gpus + held
    return mw, gpus
