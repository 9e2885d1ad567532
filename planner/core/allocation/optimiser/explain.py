"""The optimiser's answer in words: every grant with the limits that shaped it.

Owns reasons and sentences. Must never change a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.core.allocation.optimiser.dual_prices import Prices, Response
from planner.core.allocation.optimiser.exact import Choice
from planner.core.allocation.optimiser.problem import STEP_MW, Problem, name_of
from planner.domain.demand import Allocation, DeploymentDemand, PoolDemand, PoolGrant, SiteLimits
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode

NOTICEABLE = 5e-4
"""A shortfall below a twentieth of a percent is rounding of caps, not a message for people."""


@dataclass(frozen=True, slots=True)
class Scarce:
    """What does not suffice for what everybody would take freely (``free``)."""

    watts: bool
    gpus: bool
    floors: bool
    free: Response


def allocation(
    problem: Problem,
    choices: Sequence[Choice],
    prices: Prices,
    scarce: Scarce,
    limits: SiteLimits,
    asked: Sequence[DeploymentDemand],
) -> Allocation:
    """The grants of all pools, with chains, shortfalls and prices."""
    pools: dict[tuple[DeploymentId, PoolId], PoolGrant] = {}
    shortfall: dict[DeploymentId, float] = {}
    for d, (demand, choice) in enumerate(zip(asked, choices, strict=True)):
        lost = max(0.0, 1.0 - choice.share)
        shortfall[demand.deployment] = lost if lost > 1e-9 else 0.0
        rows = problem.pools_of(d)
        counts = [int(problem.count[row, column]) for row, column in zip(rows, choice.columns, strict=True)]
        useless = choice.share <= 0 and scarce.floors and not all(counts)
        for i, row in enumerate(rows):
            key = name_of(problem, row)
            pool = demand.pools[key[1]]
            # A stage that serves nobody, for its partner has no GPU, is not worth its watts.
            count = 0 if useless else counts[i]
            cap_mw = choice.steps[i] * STEP_MW
            speed = float(problem.speed[row, choice.steps[i] - problem.floor[row]])
            grant = PoolGrant(count, cap_mw, speed)
            pools[key] = PoolGrant(count, cap_mw, speed, _chain(pool, grant, lost, scarce, limits, demand.max_gpus))
    cost = sum(choice.cost for choice in choices)
    return Allocation(pools, shortfall, cost, prices.watt, prices.gpu)


def _chain(
    pool: PoolDemand, grant: PoolGrant, lost: float, scarce: Scarce, limits: SiteLimits, own_gpus: int | None
) -> tuple[Limited, ...]:
    watts = f"{grant.cap_mw / 1000:.0f} W a GPU"
    said = f"{grant.replicas} of {pool.wanted} {pool.pool} replicas at {watts}"
    if grant.replicas > pool.wanted:
        said = f"{grant.replicas} {pool.pool} replicas at {watts} in place of {pool.wanted} at full power"
    links: list[Limited] = []
    full = grant.replicas == pool.wanted and grant.speed >= 1 - 1e-9
    if not full and scarce.watts:
        links.append(
            Limited(
                grant.replicas,
                ReasonCode.POWER_BUDGET,
                f"{said}: {limits.budget_mw / 1000:.0f} W are all that GPUs may draw",
            )
        )
    if not full and scarce.gpus:
        links.append(
            Limited(grant.replicas, ReasonCode.GPU_BUDGET, f"{said}: the site has {limits.gpus} GPUs to serve with")
        )
    if not links and lost > NOTICEABLE and own_gpus is not None:
        links.append(Limited(grant.replicas, ReasonCode.GPU_BUDGET, f"{said}: the deployment may hold {own_gpus} GPUs"))
    if not links and grant.replicas != pool.wanted:
        links.append(Limited(grant.replicas, ReasonCode.REBALANCE, f"{said} cost least in energy, GPUs and changes"))
    if scarce.floors and grant.replicas < pool.min_replicas:
        least = f"its floor of {pool.min_replicas} does not fit, even at the lowest useful cap"
        links.append(Limited(grant.replicas, ReasonCode.SHORTFALL, f"{grant.replicas} {pool.pool} replicas: {least}"))
    if lost > NOTICEABLE:
        links.append(
            Limited(grant.replicas, ReasonCode.SHORTFALL, f"{lost:.1%} of the load is expected to miss its targets")
        )
    return tuple(links)
