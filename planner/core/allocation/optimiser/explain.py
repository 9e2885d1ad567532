"""The optimiser's answer in words: every grant with the limits that shaped it.

Owns reasons and sentences. Must never change a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.core.allocation.optimiser.problem import STEP_MW, Ints, Problem
from planner.core.allocation.optimiser.shares import good
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
    """The grants of all pools, with chains, predicted shares and shortfalls. ``floors``: they do not fit."""
    pools: dict[tuple[DeploymentId, PoolId], PoolGrant] = {}
    shortfall: dict[DeploymentId, float] = {}
    columns, steps, shares = solution.columns.tolist(), solution.steps.tolist(), _shares(problem, solution)
    scarce = _scarce(problem, columns, steps, solution, floors=floors)
    row = 0
    for demand in asked:
        own = range(row, row := row + len(demand.pools))
        made = math.prod(shares[own.start : own.stop])
        late = 0.0 if solution.plenty else max(0.0, 1.0 - made)
        shortfall[demand.deployment] = late if late > 1e-9 else 0.0
        counts = [int(problem.count[one, columns[one]]) for one in own]
        useless = made <= 0.0 and floors and not all(counts)
        for one, count, (name, pool) in zip(own, counts, demand.pools.items(), strict=True):
            setpoint = GpuSetpoint(Milliwatts(min(problem.cap_mw(one, steps[one]), pool.curve.max_mw)))
            # A stage that serves no request, because its partner has no GPU, is not worth its watts.
            count = 0 if useless else count
            grant = PoolGrant(count, setpoint, float(problem.speed[one, steps[one]]), good=shares[one])
            chain = _chain(pool, grant, late, scarce, limits, demand.max_gpus)
            if chain:
                grant = PoolGrant(grant.replicas, grant.setpoint, grant.speed, chain, grant.good)
            pools[demand.deployment, name] = grant
    return Allocation(pools, shortfall)


def _shares(problem: Problem, solution: Solution) -> list[float]:
    """(P) the share that each pool makes good, computed without the table's interpolation because it is displayed."""
    rows, columns = np.arange(len(solution.columns)), solution.columns
    numbers = (problem.speed[rows, solution.steps], problem.prompts[rows, columns], problem.answers[rows, columns])
    return [good(*one) for one in zip(*(table.tolist() for table in numbers), strict=True)]


def _scarce(problem: Problem, columns: list[int], steps: list[int], solution: Solution, *, floors: bool) -> _Scarce:
    """Where load goes short: watts where no slowed pool's next cap step fits, GPUs where no further replica does."""
    if solution.plenty:
        return _Scarce(solution.watts, solution.gpus, floors)
    pools = [pool for demand in problem.demands for pool in demand.pools.values()]
    counts = [int(problem.count[row, column]) for row, column in enumerate(columns)]
    held = [count * pool.gpus_per_replica for count, pool in zip(counts, pools, strict=True)]
    left_mw = problem.budget_mw - sum([n * float(problem.caps[row, steps[row]]) for row, n in enumerate(held)])
    left_gpus = problem.gpu_limit - sum(held)
    watts, gpus, last = floors, False, problem.last.tolist()
    for row, (pool, count) in enumerate(zip(pools, counts, strict=True)):
        size = pool.gpus_per_replica
        watts = watts or (steps[row] < last[row] and held[row] > 0 and held[row] * STEP_MW > left_mw)
        if count < pool.wanted:
            gpus = gpus or size > left_gpus
            watts = watts or (size <= left_gpus and size * float(problem.caps[row, 0]) > left_mw)
    return _Scarce(watts, gpus, floors)


def _chain(
    pool: PoolDemand, grant: PoolGrant, late: float, scarce: _Scarce, limits: SiteLimits, own_gpus: int | None
) -> tuple[Limited, ...]:
    full = grant.replicas == pool.wanted and grant.speed >= FULL
    if full and late <= NOTICEABLE and not scarce.floors:
        return ()
    watts = f"{grant.setpoint.cap_mw / 1000:.0f} W a GPU"
    chosen = f"{grant.replicas} of {pool.wanted} {pool.pool} replicas at {watts}"
    if grant.replicas > pool.wanted:
        chosen = f"{grant.replicas} {pool.pool} replicas at {watts} in place of {pool.wanted} at full power"
    links: list[Limited] = []
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
