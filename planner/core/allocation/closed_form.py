"""Caps for counts that are already fixed, where watts suffice: in closed form, without the optimiser.

In most ticks the limiters fix the counts. Then only caps remain to be chosen, and while all of them fit, the cheapest
choice is the lowest cap that carries each pool with speed to spare. Must return None wherever the optimiser would have
to choose; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable

from planner.core.allocation.optimiser.problem import STEP_MW, felt_needs, highest_cap_mw, lowest_cap_mw
from planner.core.allocation.optimiser.shares import good
from planner.core.power.curve import cap_for_speed, chosen_speed, is_fixed, speed
from planner.domain.demand import Allocation, DeploymentDemand, PoolDemand, PoolGrant, SiteLimits
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.units import GpuSetpoint, Milliwatts

ENOUGH = 1.0 + 1e-9


def settled(demands: Iterable[DeploymentDemand], limits: SiteLimits) -> Allocation | None:
    """Caps for demands with one count per pool; None if a count is open, or if load, GPUs or watts do not fit."""
    grants: dict[tuple[DeploymentId, PoolId], PoolGrant] = {}
    gpus = above_parked_mw = 0
    shortfall = {}
    for demand in demands:
        held = 0
        for name, pool in demand.pools.items():
            if len(pool.required_speed) != 1 or pool.required_speed[0] > ENOUGH:
                return None
            given = grant(pool)
            grants[demand.deployment, name] = given
            used = given.replicas * pool.gpus_per_replica
            held += used
            above_parked_mw += used * (given.setpoint.cap_mw - limits.reserve_mw_per_idle_gpu)
        if demand.max_gpus is not None and held > demand.max_gpus:
            return None
        gpus += held
        shortfall[demand.deployment] = 0.0
    return Allocation(grants, shortfall) if _fit(gpus, above_parked_mw, limits) else None


def _fit(gpus: int, above_parked_mw: int, limits: SiteLimits) -> bool:
    return gpus <= limits.gpus and above_parked_mw <= limits.budget_mw - limits.gpus * limits.reserve_mw_per_idle_gpu


def grant(pool: PoolDemand) -> PoolGrant:
    """The lowest useful cap, in the optimiser's steps, that carries a pool of one count; a fixed cap unchanged."""
    curve = pool.curve
    if is_fixed(curve):
        fixed = chosen_speed(curve, curve.max_mw)
        return PoolGrant(
            pool.min_replicas,
            GpuSetpoint(Milliwatts(curve.max_mw)),
            fixed,
            good=_good(pool, fixed),
        )
    needed = -(-cap_for_speed(curve, pool.plenty_speed(0)) // STEP_MW) * STEP_MW
    cap = Milliwatts(min(highest_cap_mw(pool), max(lowest_cap_mw(pool), needed)))
    fast = speed(curve, cap)
    return PoolGrant(pool.min_replicas, GpuSetpoint(cap), fast, good=_good(pool, fast))


def _good(pool: PoolDemand, fast: float) -> float:
    prompts, answers = (felt[0] if felt else 0.0 for felt in felt_needs(pool))
    return good(fast, prompts, answers)
