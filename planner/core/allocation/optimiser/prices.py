"""Prices of a watt and of a GPU at which deployments that each choose on their own share what there is.

Owns the dual search (one Lagrange multiplier for watts, one for GPUs). Its answer is never final: prices leave a gap,
and what pools are worth is only nearly a sum. A deployment's own GPU limit is kept exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from planner.core.allocation.optimiser.padded_tables import Floats, Ints
from planner.core.allocation.optimiser.problem import Problem
from planner.core.allocation.optimiser.staircase import NOTHING, over_time, score

Bools = NDArray[np.bool_]

CLOSE_ENOUGH = 1.02
"""Relative accuracy of a price: what is left over is given away afterwards."""
ROUNDS = 3
LOWEST_PRICE = 1e-6
HIGHEST_PRICE = 1e9
FEW = 8
"""More deployments than this are not compared pair by pair: their integrality gap is small, and a tick is short."""
COARSE = 3
"""With more than a few deployments, only one in this many cap steps is examined for a price."""


@dataclass(frozen=True, slots=True)
class SamePools:
    """Deployments with the same number of pools: their numbers (E) and rows (E, K)."""

    deployments: Ints
    rows: Ints


@dataclass(frozen=True)
class Market:
    """What every option is worth (R, S; -inf: none), the watts above reserve that it holds, its cap step.

    R are the counts that there are, pool by pool (``Problem.listed``): of a pool few, where another has many.
    """

    problem: Problem
    value: Floats
    mw: Floats
    steps: Ints
    stages: tuple[SamePools, ...]

    def respond(self, watt: float, gpu: float) -> Response:
        """Every deployment's best choice, watts (per mW) and GPUs paid for."""
        problem, listed = self.problem, self.problem.listed
        reduced = self.value - watt * self.mw
        at = reduced.argmax(axis=1)
        best = reduced[np.arange(len(at)), at] - gpu * problem.gpus[listed.rows, listed.columns]
        by_count = np.full(problem.gpus.shape, -np.inf)
        by_count[listed.rows, listed.columns] = best
        columns = np.zeros(len(problem.owner), dtype=np.int64)
        for place, stage in enumerate(self.stages):
            columns[stage.rows] = self._columns(place, by_count)
        cell, first = listed.start[:-1] + columns, problem.first[:-1]
        taken = at[cell]
        return Response(
            columns=columns,
            steps=self.steps[cell, taken],
            mw=np.add.reduceat(self.mw[cell, taken], first),
            gpus=np.add.reduceat(problem.gpus[np.arange(len(columns)), columns], first),
            value=np.add.reduceat(self.value[cell, taken], first),
        )

    def of(self, row: int) -> tuple[Floats, Floats, Floats]:
        """One pool's options by count and cap: what they are worth, and their milliwatts (N', S); and GPUs (N', 1)."""
        start, wide = int(self.problem.listed.start[row]), int(self.problem.width[row])
        own = slice(start, start + wide)
        return self.value[own], self.mw[own], self.problem.gpus[row, :wide, None]

    def _columns(self, place: int, by_count: Floats) -> Ints:
        """(E, K) of ``stages[place]``, the counts of the best sum over a deployment's pools within its own limit."""
        rows, within = self.stages[place].rows, self.within[place]
        wide = [int(wide) for wide in self.problem.width[rows].max(axis=0)]
        total = _sums(by_count, rows, wide)
        if within is not None:
            total = np.where(within, total, -np.inf)
        return np.array(np.unravel_index(total.argmax(axis=1), wide), dtype=np.int64).T

    @cached_property
    def within(self) -> tuple[Bools | None, ...]:
        """By stage, (E, N * ..) which counts of a deployment's pools keep to its own GPU limit; None: all."""
        return tuple([_within(self.problem, stage) for stage in self.stages])


def _sums(numbers: Floats, rows: Ints, wide: list[int]) -> Floats:
    """(E, N * ..) the sum over the pools of each deployment, of all combinations of their first ``wide`` counts."""
    total = numbers[rows[:, 0], : wide[0]]
    for k in range(1, rows.shape[1]):
        total = (total[:, :, None] + numbers[rows[:, k], None, : wide[k]]).reshape(len(rows), -1)
    return total


def _within(problem: Problem, stage: SamePools) -> Bools | None:
    own = problem.own_gpus[stage.deployments]
    if not np.isfinite(own).any():
        return None
    wide = [int(wide) for wide in problem.width[stage.rows].max(axis=0)]
    found: Bools = _sums(problem.gpus, stage.rows, wide) <= own[:, None]
    return found


@dataclass(frozen=True, slots=True)
class Response:
    """(P) columns and steps chosen at some prices, and (D) the watts, GPUs and worth of each deployment."""

    columns: Ints
    steps: Ints
    mw: Floats
    gpus: Floats
    value: Floats

    def fits(self, problem: Problem) -> bool:
        """Whether all together keep to the site's watts and GPUs."""
        return bool(self.mw.sum() <= problem.budget_mw and self.gpus.sum() <= problem.gpu_limit)

    @property
    def possible(self) -> bool:
        """Whether every deployment found a choice at all."""
        return bool(np.isfinite(self.value).all())


def stages(problem: Problem) -> tuple[SamePools, ...]:
    """All deployments, by their number of pools."""
    pools = np.diff(problem.first)
    if problem.deployments == 1:
        return (SamePools(np.array([0]), np.arange(len(problem.owner))[None, :]),)
    found = []
    for size in np.unique(pools):
        members = np.flatnonzero(pools == size)
        found.append(SamePools(members, problem.first[members][:, None] + np.arange(size)))
    return tuple(found)


def plenty(problem: Problem) -> Market:
    """One cap per count: the lowest that carries the load with speed to spare. Its worth is what it saves."""
    rows, columns = problem.listed.rows, problem.listed.columns
    mw = np.where(problem.carries, problem.plenty_mw, 0.0)[rows, columns, None]
    value, steps = -problem.plenty_cost[rows, columns, None], problem.plenty_steps[rows, columns, None]
    return Market(problem, value, mw, steps, stages(problem))


def short(problem: Problem) -> Market:
    """Every cap (or every third), worth the logarithm of the share that a pool makes good: by pool, to be summed."""
    step = 1 if problem.deployments <= FEW else COARSE
    rows, columns = problem.listed.rows, problem.listed.columns
    steps = np.arange(0, problem.speed.shape[1], step)
    options = problem.every(step)
    starting = np.append(problem.starting[problem.owner], 0.0)[rows, None]
    share = over_time(options.share, options.first, starting)
    scores = score(share, options.carried, problem.kept[rows, columns, None])
    worth = np.append(problem.worth[problem.owner], 0.0)[rows, None]
    value = np.where(steps <= problem.last[rows, None], worth * np.log(np.maximum(NOTHING, scores)), -np.inf)
    mw = problem.gpus[rows, columns, None] * problem.caps[rows, ::step]
    return Market(problem, value, mw, np.broadcast_to(steps, value.shape), stages(problem))


@dataclass(frozen=True, slots=True)
class Found:
    """The best answer that fits, None for none; its prices, in worth per mW and per GPU."""

    fitting: Response | None
    watt: float
    gpu: float


def search(market: Market) -> Found:
    """Bisect the price of watts, of GPUs, or of both in turn. Both only where each alone leaves the other short."""
    seen: list[tuple[Response, float, float]] = []

    def ask(watt: float, gpu: float) -> Response:
        seen.append((market.respond(watt, gpu), watt, gpu))
        return seen[-1][0]

    def fitting() -> bool:
        return any(response.fits(problem) for response, _, _ in seen)

    problem = market.problem
    if not ask(0.0, 0.0).fits(problem):
        unit = float(problem.worth.sum()) / max(1.0, problem.budget_mw)
        watt = _lowest(lambda price: _sum(ask(price * unit, 0.0).mw) <= problem.budget_mw) * unit
        if not fitting():
            unit_gpu = float(problem.worth.sum()) / max(1.0, problem.gpu_limit)
            gpu = _lowest(lambda price: _sum(ask(0.0, price * unit_gpu).gpus) <= problem.gpu_limit) * unit_gpu
            if not fitting():
                _both(problem, ask, watt, gpu, (unit, unit_gpu))
    good = [found for found in seen if found[0].fits(problem)]
    if not good:
        return Found(None, seen[-1][1], seen[-1][2])
    best = max(good, key=lambda found: _sum(found[0].value))
    return Found(_completed(problem, best[0], [response for response, _, _ in seen]), best[1], best[2])


def _sum(numbers: Floats) -> float:
    return float(numbers.sum())


def _both(
    problem: Problem, ask: Callable[[float, float], Response], watt: float, gpu: float, units: tuple[float, float]
) -> None:
    def watts_fit(price: float, gpu: float) -> bool:
        return _sum(ask(price * units[0], gpu).mw) <= problem.budget_mw

    def gpus_fit(price: float, watt: float) -> bool:
        return _sum(ask(watt, price * units[1]).gpus) <= problem.gpu_limit

    for _ in range(ROUNDS):
        watt = _lowest(partial(watts_fit, gpu=gpu)) * units[0]
        gpu = _lowest(partial(gpus_fit, watt=watt)) * units[1]
    for _ in range(64):
        if ask(watt, gpu).fits(problem):
            return
        watt, gpu = max(watt, LOWEST_PRICE * units[0]) * 1.5, max(gpu, LOWEST_PRICE * units[1]) * 1.5


def _lowest(enough: Callable[[float], bool]) -> float:
    """The lowest price that is ``enough``, by bisection of its logarithm; 0 if free."""
    if enough(0.0):
        return 0.0
    low, high, factor = 1.0, 1.0, 8.0
    if enough(high):
        while low > LOWEST_PRICE and enough(low := low / factor):
            high = low
    else:
        while high < HIGHEST_PRICE and not enough(high := high * factor):
            low = high
    while high / low > CLOSE_ENOUGH:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _completed(problem: Problem, fitting: Response, seen: list[Response]) -> Response:
    """Give what is left to those who gain most: one by one, choices from the answers that did not quite fit."""
    left_mw = problem.budget_mw - _sum(fitting.mw)
    left_gpus = problem.gpu_limit - _sum(fitting.gpus)
    near = min(
        (other for other in seen if not other.fits(problem)),
        key=lambda other: abs(_sum(other.mw) - problem.budget_mw) + abs(_sum(other.gpus) - problem.gpu_limit) * 1e6,
        default=None,
    )
    if near is None:
        return fitting
    gain = near.value - fitting.value
    more_mw, more_gpus = near.mw - fitting.mw, near.gpus - fitting.gpus
    taken = np.zeros(len(gain), dtype=np.bool_)
    for d in np.argsort(-gain / np.maximum(1.0, more_mw + 1e5 * more_gpus), kind="stable").tolist():
        if gain[d] > 0.0 and more_mw[d] <= left_mw and more_gpus[d] <= left_gpus:
            taken[d] = True
            left_mw, left_gpus = left_mw - more_mw[d], left_gpus - more_gpus[d]
    by_pool = taken[problem.owner]
    return Response(
        np.where(by_pool, near.columns, fitting.columns),
        np.where(by_pool, near.steps, fitting.steps),
        np.where(taken, near.mw, fitting.mw),
        np.where(taken, near.gpus, fitting.gpus),
        np.where(taken, near.value, fitting.value),
    )
