"""The optimiser's answer in words: every grant with the limits that shaped it.

Owns reasons and sentences. Must never change a number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from planner.core.allocation.optimiser.padded_tables import Ints
from planner.core.allocation.optimiser.problem import Problem
from planner.core.allocation.optimiser.shares import good
from planner.domain.demand import Allocation, PoolDemand, PoolGrant, SiteLimits
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


def allocation(problem: Problem, solution: Solution, limits: SiteLimits, *, floors: bool) -> Allocation:
    """The grants of all pools, with chains, predicted shares and shortfalls. ``floors``: they do not fit."""
    pools: dict[tuple[DeploymentId, PoolId], PoolGrant] = {}
    shortfall: dict[DeploymentId, float] = {}
    shares, answers = _shares(problem, solution), _answers(problem, solution)
    scarce = _scarce(problem, solution, floors=floors)
    every = (
        f"{limits.budget_mw / 1000:.0f} W are all that GPUs may draw",
        f"the site has {limits.gpus} GPUs to serve with",
    )
    row = 0
    for demand in problem.demands:
        own = range(row, row := row + len(demand.pools))
        made = math.prod(shares[own.start : own.stop])
        late = 0.0 if solution.plenty else max(0.0, 1.0 - made)
        shortfall[demand.deployment] = late if late > 1e-9 else 0.0
        # A stage that serves no request, because its partner has no GPU, is not worth its watts.
        useless = made <= 0.0 and floors and not all(answers[one][0] for one in own)
        for one, (name, pool) in zip(own, demand.pools.items(), strict=True):
            count, cap_mw, speed = answers[one]
            setpoint, count = GpuSetpoint(Milliwatts(min(cap_mw, pool.curve.max_mw))), 0 if useless else count
            chosen = _Chosen(count, setpoint.cap_mw, speed, shares[one], late)
            chain = _chain(pool, chosen, scarce, every, demand.max_gpus)
            pools[demand.deployment, name] = PoolGrant(count, setpoint, speed, chain, shares[one])
    return Allocation(pools, shortfall)


def _answers(problem: Problem, solution: Solution) -> list[tuple[int, int, float]]:
    """(P) the count, the cap in mW, and the speed of each pool."""
    rows, columns, steps = np.arange(len(solution.columns)), solution.columns, solution.steps
    caps_mw = (problem.floor[:-1] + steps) * problem.step_mw
    table = (problem.count[rows, columns], caps_mw, problem.speed[rows, steps])
    return list(zip(*(column.tolist() for column in table), strict=True))


def _shares(problem: Problem, solution: Solution) -> list[float]:
    """(P) the share that each pool makes good, computed without the table's interpolation because it is displayed."""
    rows, columns = np.arange(len(solution.columns)), solution.columns
    numbers = (problem.speed[rows, solution.steps], problem.prompts[rows, columns], problem.answers[rows, columns])
    return [good(*one) for one in zip(*(table.tolist() for table in numbers), strict=True)]


def _scarce(problem: Problem, solution: Solution, *, floors: bool) -> _Scarce:
    """Where load goes short: watts where no slowed pool's next cap step fits, GPUs where no further replica does."""
    if solution.plenty:
        return _Scarce(solution.watts, solution.gpus, floors)
    rows, columns, steps = np.arange(len(solution.columns)), solution.columns, solution.steps
    held, size = problem.gpus[rows, columns], problem.size[:-1]
    left_mw = problem.budget_mw - sum((held * problem.caps[rows, steps]).tolist())
    left_gpus = problem.gpu_limit - float(held.sum())
    wants = problem.count[rows, columns] < problem.wanted[:-1]
    slowed = (steps < problem.last[:-1]) & (held > 0) & (held * problem.step_mw > left_mw)
    unpowered = wants & (size <= left_gpus) & (size * problem.caps[:-1, 0] > left_mw)
    return _Scarce(floors or bool((slowed | unpowered).any()), bool((wants & (size > left_gpus)).any()), floors)


class _Chosen(NamedTuple):
    """One pool's answer in numbers: replicas, mW and speed of a GPU, the share it makes good, the deployment's late."""

    replicas: int
    cap_mw: int
    speed: float
    good: float
    late: float


def _chain(
    pool: PoolDemand, chosen: _Chosen, scarce: _Scarce, every: tuple[str, str], own_gpus: int | None
) -> tuple[Limited, ...]:
    """The limits that shaped an answer. ``every``: what a site's watts and its GPUs are, in words."""
    count, late = chosen.replicas, chosen.late
    full = count == pool.wanted and chosen.speed >= FULL
    if full and late <= NOTICEABLE and not scarce.floors:
        return ()
    watts = f"{chosen.cap_mw / 1000:.0f} W a GPU"
    what = f"{count} of {pool.wanted} {pool.pool} replicas at {watts}"
    if count > pool.wanted:
        what = f"{count} {pool.pool} replicas at {watts} in place of {pool.wanted} at full power"
    links: list[Limited] = []
    if not full and scarce.watts:
        links.append(Limited(count, ReasonCode.POWER_BUDGET, f"{what}: {every[0]}"))
    if not full and scarce.gpus:
        links.append(Limited(count, ReasonCode.GPU_BUDGET, f"{what}: {every[1]}"))
    if not links and late > NOTICEABLE and own_gpus is not None:
        links.append(Limited(count, ReasonCode.GPU_BUDGET, f"{what}: the deployment may hold {own_gpus} GPUs"))
    if not links and count != pool.wanted:
        links.append(Limited(count, ReasonCode.REBALANCE, f"{what} cost least in energy, GPUs and changes"))
    if scarce.floors and count < pool.min_replicas:
        least = f"its floor of {pool.min_replicas} does not fit, even at the lowest cap"
        links.append(Limited(count, ReasonCode.SHORTFALL, f"{count} {pool.pool} replicas: {least}"))
    if late > NOTICEABLE:
        stage = f"{chosen.good:.1%} are expected to be in time here"
        links.append(Limited(count, ReasonCode.SHORTFALL, f"{late:.1%} of the requests will be late: {stage}"))
    return tuple(links)
