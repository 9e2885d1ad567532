"""The bound for one scenario: the model's tables, the plan for a share or a budget, and the least cost for any share.

A price for each request that is not good turns "least cost for a share" into a dynamic program. For every price tried,
``cost + price * missed >= value`` holds for each plan of the model; so the highest of these lines at a share is a
bound on the cost at that share, and any policy's regret is its own cost over it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from planner.sim.bound.count_program import FORBIDDEN, BoundWorld, Planned, follow, solve
from planner.sim.bound.world_model import model
from planner.sim.workload.scenario import Scenario

BRACKET, BRACKETED = 4.0, 4
"""Prices are raised or lowered by this factor until one is found on either side of the wanted share: so often, which
spans five orders of magnitude around what a request costs on the largest fleet."""
CLOSE_PRICES = 2e-3
"""Then halved between the two, until they are within this part of each other."""
PRICES_TRIED = BRACKETED + math.ceil(math.log2(math.log(BRACKET) / math.log1p(CLOSE_PRICES)))
CERTAIN_REQUESTS = 0.01
"""Under a budget, so much of a request is worth whatever a plan may cost: the most good requests are exact to that."""


class BoundAim(StrEnum):
    """What a plan spends as little of as it can."""

    HOURS = "hours"
    JOULES = "joules"


@dataclass(frozen=True, slots=True)
class PriceLine:
    """One price's bound: no plan of the model has ``cost + price * missed`` below ``value``."""

    price: float
    value: float


@dataclass(frozen=True, slots=True)
class Bound:
    """The plan, and the lines that bound the cost at every share. Costs in GPU-hours or megajoules of held GPUs."""

    aim: BoundAim
    every_s: float
    caps_mw: tuple[tuple[int, ...], tuple[int, ...]]
    requests: float
    plan: Planned
    lines: tuple[PriceLine, ...]
    most_cost: float
    """No plan costs more, in the program's own unit."""

    @property
    def unit(self) -> float:
        """Of a cost as the program counts it, in one of those that are reported."""
        return 3600.0 if self.aim is BoundAim.HOURS else 1e6

    @property
    def share(self) -> float:
        """The good share that the model expects of the plan."""
        return self.plan.good / max(1.0, self.requests)

    @property
    def cost(self) -> float:
        """What the model expects the plan to cost."""
        return self.plan.cost / self.unit

    @property
    def most_good(self) -> float:
        """No plan of the model makes more requests good under the budget, whatever it costs: from the first line."""
        line = self.lines[0]
        return self.requests - max(0.0, (line.value - self.most_cost) / line.price)

    def least_cost(self, share: float) -> float:
        """No plan of the model with this good share costs less."""
        missed = (1.0 - share) * self.requests
        return max((line.value - line.price * missed for line in self.lines), default=0.0) / self.unit


def bound(scenario: Scenario, share: float, aim: BoundAim = BoundAim.HOURS) -> Bound:
    """The plan with the least cost that makes ``share`` of the requests good; under a budget, with the most good ones.

    Raises ValueError for pools other than one of prefill and one of decode.
    """
    world = model(scenario, by_joules=aim is BoundAim.JOULES)
    requests = float(world.requests.sum())
    if world.budget_mw is not None:
        price = world.most_cost() / CERTAIN_REQUESTS
        solved = solve(world, price)
        if solved.value >= FORBIDDEN:
            raise ValueError("the budget does not feed a worker of each pool at its lowest cap")
        return _bound(world, aim, requests, follow(world, solved), [PriceLine(price, solved.value)])
    lines, best = [], None
    low, high = 0.0, None
    price = _first_price(world)
    for _ in range(PRICES_TRIED):
        solved = solve(world, price)
        lines.append(PriceLine(price, solved.value))
        plan = follow(world, solved)
        if plan.good >= share * requests:
            high = price
            best = plan if best is None or plan.cost < best.cost else best
        else:
            low = price
        price = _next_price(low, high)
    return _bound(world, aim, requests, best or plan, lines)


def _next_price(low: float, high: float | None) -> float:
    """Higher until a plan is good enough, then between; the prices span orders of magnitude."""
    if high is None:
        return BRACKET * low
    return (low * high) ** 0.5 if low > 0 else high / BRACKET


def _bound(world: BoundWorld, aim: BoundAim, requests: float, plan: Planned, lines: list[PriceLine]) -> Bound:
    return Bound(
        aim,
        world.every_s,
        (world.prefill.caps_mw, world.decode.caps_mw),
        requests,
        plan,
        tuple(lines),
        world.most_cost(),
    )


def _first_price(world: BoundWorld) -> float:
    """What a request costs on a fleet that is as large as it may be."""
    largest = world.costs(world.prefill)[:, -1, 0, 0].sum() + world.costs(world.decode)[:, -1, 0, 0].sum()
    return float(largest / max(1.0, world.requests.sum()))
