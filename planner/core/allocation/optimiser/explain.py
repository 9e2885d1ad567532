"""The optimiser's answer in words: every grant with the limits that shaped it.

Owns reasons and sentences. Must never change a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.core.allocation.optimiser.problem import STEP_MW, Floats, Ints, Problem
from planner.core.allocation.optimiser.shares import good
from planner.core.allocation.optimiser.staircase import NOTHING, score
from planner.domain.demand import Allocation, DeploymentDemand, PoolDemand, PoolGrant, SiteLimits
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts

NOTICEABLE = 5e-3
"""Share of late requests below which no reason is given: the forecast is not more accurate than that."""
FULL = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Solution:
    """(P) count columns and cap steps above the floor. ``plenty``: everything is carried with speed to spare.

    ``watts`` and ``gpus``: whether they kept a pool from a cheaper answer that carries as much.
    """

    columns: Ints
    steps: Ints
    plenty: bool
    watts: bool = True
    gpus: bool = True


@dataclass(frozen=True, slots=True)
class _Scarce:
    """Which resources are used up at the answer."""

    watts: bool
    gpus: bool
    floors: bool


def allocation(
    problem: Problem, solution: Solution, limits: SiteLimits, asked: Sequence[DeploymentDemand], *, floors: bool
) -> Allocation:
    """The grants of all pools, with chains, predicted shares, shortfalls and prices. ``floors``: they do not fit."""
    pools: dict[tuple[DeploymentId, PoolId], PoolGrant] = {}
    shortfall: dict[DeploymentId, float] = {}
    columns, steps = solution.columns, solution.steps
    shares = _shares(problem, solution)
    scarce = _scarce(problem, solution, floors=floors)
    for d, demand in enumerate(asked):
        own = problem.pools_of(d)
        made = float(shares[own.start : own.stop].prod())
        late = 0.0 if solution.plenty else max(0.0, 1.0 - made)
        shortfall[demand.deployment] = late if late > 1e-9 else 0.0
        counts = {row: int(problem.count[row, columns[row]]) for row in own}
        useless = made <= 0.0 and floors and not all(counts.values())
        for row in own:
            key = problem.name_of(row)
            # A stage that serves no request, because its partner has no GPU, is not worth its watts.
            grant = PoolGrant(
                0 if useless else counts[row],
                GpuSetpoint(Milliwatts(min(problem.cap_mw(row, int(steps[row])), demand.pools[key[1]].curve.max_mw))),
                float(problem.speed[row, steps[row]]),
                good=float(shares[row]),
            )
            pool = demand.pools[key[1]]
            chain = _chain(pool, grant, late, scarce, limits, demand.max_gpus)
            pools[key] = replace(grant, chain=chain)
    objective = 0.0 if solution.plenty else _loss(problem, shares, columns, steps)
    return Allocation(pools, shortfall, objective)


def _shares(problem: Problem, solution: Solution) -> Floats:
    """(P) the share that each pool makes good, computed without the table's interpolation because it is displayed."""
    rows, columns = np.arange(len(solution.columns)), solution.columns
    numbers = (problem.speed[rows, solution.steps], problem.prompts[rows, columns], problem.answers[rows, columns])
    return np.array([good(*one) for one in zip(*(table.tolist() for table in numbers), strict=True)])


def _loss(problem: Problem, shares: Floats, columns: Ints, steps: Ints) -> float:
    """``-ln(score)``, weighed by worth: what is minimised."""
    rows, first = np.arange(len(columns)), problem.first[:-1]
    made = np.multiply.reduceat(shares, first)
    carried = np.minimum.reduceat(problem.carried(columns, steps), first)
    kept = np.multiply.reduceat(problem.kept[rows, columns], first)
    return float(-(problem.worth * np.log(np.maximum(NOTHING, score(made, carried, kept)))).sum())


def _scarce(problem: Problem, solution: Solution, *, floors: bool) -> _Scarce:
    """Where load goes short: watts where no slowed pool's next cap step fits, GPUs where no further replica does."""
    if solution.plenty:
        return _Scarce(solution.watts, solution.gpus, floors)
    columns, steps = solution.columns, solution.steps
    rows = np.arange(len(columns))
    held = problem.gpus[rows, columns]
    left_mw = problem.budget_mw - float((held * problem.caps[rows, steps]).sum())
    left_gpus = problem.gpu_limit - float(held.sum())
    slowed = steps < problem.last[:-1]
    size = np.array([float(pool.gpus_per_replica) for demand in problem.demands for pool in demand.pools.values()])
    wanted = np.array([pool.wanted for demand in problem.demands for pool in demand.pools.values()])
    fewer = problem.count[rows, columns] < wanted
    dear = size * problem.caps[:-1, 0]
    watts = (slowed & (held > 0) & (held * STEP_MW > left_mw)) | (fewer & (dear > left_mw) & (size <= left_gpus))
    return _Scarce(bool(watts.any()) or floors, bool((fewer & (size > left_gpus)).any()), floors)


def _chain(
    pool: PoolDemand, grant: PoolGrant, late: float, scarce: _Scarce, limits: SiteLimits, own_gpus: int | None
) -> tuple[Limited, ...]:
    watts = f"{grant.setpoint.cap_mw / 1000:.0f} W a GPU"
    chosen = f"{grant.replicas} of {pool.wanted} {pool.pool} replicas at {watts}"
    if grant.replicas > pool.wanted:
        chosen = f"{grant.replicas} {pool.pool} replicas at {watts} in place of {pool.wanted} at full power"
    links: list[Limited] = []
    full = grant.replicas == pool.wanted and grant.speed >= FULL
    if not full and scarce.watts:
        why = f"{limits.budget_mw / 1000:.0f} W are all that GPUs may draw"
        links.append(Limited(grant.replicas, ReasonCode.POWER_BUDGET, f"{chosen}: {why}"))
    if not full and scarce.gpus:
        why = f"the site has {limits.gpus} GPUs to serve with"
        links.append(Limited(grant.replicas, ReasonCode.GPU_BUDGET, f"{chosen}: {why}"))
    if not links and late > NOTICEABLE and own_gpus is not None:
        links.append(
            Limited(grant.replicas, ReasonCode.GPU_BUDGET, f"{chosen}: the deployment may hold {own_gpus} GPUs")
        )
    if not links and grant.replicas != pool.wanted:
        links.append(Limited(grant.replicas, ReasonCode.REBALANCE, f"{chosen} cost least in energy, GPUs and changes"))
    if scarce.floors and grant.replicas < pool.min_replicas:
        least = f"its floor of {pool.min_replicas} does not fit, even at the lowest useful cap"
        links.append(Limited(grant.replicas, ReasonCode.SHORTFALL, f"{grant.replicas} {pool.pool} replicas: {least}"))
    if late > NOTICEABLE:
        stage = f"{grant.good:.1%} are expected to be in time here"
        links.append(Limited(grant.replicas, ReasonCode.SHORTFALL, f"{late:.1%} of the requests will be late: {stage}"))
    return tuple(links)
