"""Prices of a watt and of a GPU, such that deployments that each mind only themselves share what there is.

Owns the dual search (one Lagrange multiplier for watts, one for GPUs). Must never be the last word: prices leave a gap
that the core search closes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from planner.core.allocation.optimiser.problem import Floats, Ints, Levels, Problem, carried

PRECISE, ROUGH = 1.002, 1.02
"""Ratios within which a price is found: rough where nothing was known before, for a finer market follows."""
ROUNDS = 3
LOWEST_PRICE = 1e-2


@dataclass(frozen=True, slots=True)
class Prices:
    """Watts of cost per watt of cap, and per GPU."""

    watt: float = 0.0
    gpu: float = 0.0


FREE = Prices()


@dataclass(frozen=True, slots=True)
class Response:
    """What every deployment would choose at these prices. ``bound`` is below every feasible total cost."""

    prices: Prices
    level: Ints
    columns: Ints
    """(P) chosen count column at the chosen level."""
    by_level: Floats
    """(D, K) the best reduced cost at each level."""
    mw: float
    gpus: float
    cost: float
    bound: float

    def at(self, share: Floats) -> Floats:
        """(D) the load levels chosen."""
        chosen: Floats = share[np.arange(len(self.level)), self.level]
        return chosen

    def fits(self, problem: Problem) -> bool:
        return self.mw <= problem.budget_mw and self.gpus <= problem.gpu_limit


@dataclass(frozen=True, slots=True)
class OwnLimits:
    """Deployments of two pools whose own GPU limit can bind: rows of their pools, and for each count of the first
    the last count of the second that still fits (L, N); -1 for none.
    """

    first: Ints
    second: Ints
    last: Ints


def within_own_limits(problem: Problem, limits: OwnLimits) -> Problem:
    """The same problem, where ``top`` knows what a deployment's own GPU limit lets it carry."""
    if not len(limits.first):
        return problem
    fastest = problem.speed.max(axis=1)[:, None]
    most = np.maximum.accumulate(np.where(np.isfinite(problem.fixed), carried(fastest, problem.need), 0.0), axis=1)
    partner = np.take_along_axis(most[limits.second], np.maximum(limits.last, 0), axis=1)
    both = np.where(limits.last >= 0, np.minimum(most[limits.first], partner), 0.0)
    top = problem.top.copy()
    top[problem.owner[limits.first]] = both.max(axis=1, initial=0.0)
    return replace(problem, top=np.minimum(top, problem.top))


@dataclass(frozen=True, slots=True)
class Market:
    """A problem at certain load levels: ``share`` is (D, K)."""

    problem: Problem
    share: Floats
    at: Levels
    limits: OwnLimits


def own_limits(problem: Problem) -> OwnLimits:
    """One pool was cut to its limit when the problem was built, and so were three or more."""
    if not np.isfinite(problem.most_gpus).any():
        none = np.zeros(0, dtype=np.int64)
        return OwnLimits(none, none, np.zeros((0, problem.need.shape[1]), dtype=np.int64))
    real = np.isfinite(problem.fixed)
    most = np.where(real, problem.gpus, 0.0).max(axis=1, initial=0.0)
    asked = np.add.reduceat(most, problem.first[:-1])
    two = np.diff(problem.first) == 2
    first = problem.first[:-1][(asked > problem.most_gpus) & two]
    second = first + 1
    left = problem.most_gpus[problem.owner[first], None] - problem.gpus[first]
    # Counts rise along the row, so that those which fit are the leading ones.
    fits = (problem.gpus[second][:, None, :] <= left[:, :, None]) & real[second][:, None, :]
    return OwnLimits(first, second, np.where(real[first], fits.sum(axis=2) - 1, -1))


def respond(market: Market, prices: Prices) -> Response:
    """Every deployment's cheapest choice, watts and GPUs paid for."""
    problem, at = market.problem, market.at
    reduced = at.cost + prices.watt / 1000 * at.mw + prices.gpu * problem.gpus[:, None, :]
    column = reduced.argmin(axis=2)
    cheapest = np.take_along_axis(reduced, column[:, :, None], axis=2)[:, :, 0]
    if len(market.limits.first):
        _within_own_limits(market.limits, reduced, column, cheapest)
    by_level = np.add.reduceat(cheapest, problem.first[:-1], axis=0) + problem.worth[:, None] * (1 - market.share)
    # Level order is rising: among equals the larger load.
    last = by_level.shape[1] - 1
    level = last - by_level[:, ::-1].argmin(axis=1)
    rows = np.arange(len(problem.owner))
    mine = level[problem.owner]
    picked = column[rows, mine]
    mw = float(at.mw[rows, mine, picked].sum())
    gpus = float(problem.gpus[rows, picked].sum())
    total = float(by_level[np.arange(len(level)), level].sum())
    paid = prices.watt / 1000 * mw + prices.gpu * gpus
    bound = total - prices.watt / 1000 * problem.budget_mw - prices.gpu * problem.gpu_limit
    return Response(prices, level, picked, by_level, mw, gpus, total - paid, bound)


def _within_own_limits(limits: OwnLimits, reduced: Floats, column: Ints, cheapest: Floats) -> None:
    """Rewrites the answers of ``limits`` so that both pools together keep their limit: exact, by running minima."""
    one, two = reduced[limits.first], reduced[limits.second]
    running = np.minimum.accumulate(two, axis=2)
    places = np.arange(two.shape[2])
    at = np.maximum.accumulate(np.where(two <= running, places, 0), axis=2)
    last = np.broadcast_to(np.maximum(limits.last, 0)[:, None, :], one.shape)
    total = np.where(limits.last[:, None, :] >= 0, one + np.take_along_axis(running, last, axis=2), np.inf)
    picked = total.argmin(axis=2)[:, :, None]
    partner = np.take_along_axis(at, np.take_along_axis(last, picked, axis=2), axis=2)
    column[limits.first], column[limits.second] = picked[:, :, 0], partner[:, :, 0]
    best = np.take_along_axis(total, picked, axis=2)[:, :, 0]
    cheapest[limits.second] = np.take_along_axis(two, partner, axis=2)[:, :, 0]
    with np.errstate(invalid="ignore"):
        cheapest[limits.first] = np.where(np.isfinite(best), best - cheapest[limits.second], np.inf)


@dataclass(frozen=True, slots=True)
class Search:
    """What the price search found: the tightest bound and the cheapest response that fits."""

    tightest: Response
    fitting: Response | None


def search(market: Market, start: Prices) -> Search:
    """Bisect the price of watts, of GPUs, or of both in turn. Both only where each alone leaves the other short."""
    seen: list[Response] = []

    def ask(watt: float, gpu: float) -> Response:
        seen.append(respond(market, Prices(watt, gpu)))
        return seen[-1]

    problem = market.problem
    if not ask(0.0, 0.0).fits(problem):
        # At such a price one cap step outweighs all load: nothing dearer is needed, and sums stay exact enough.
        most = float(problem.worth.sum()) + 1e6
        watt = _lowest(lambda price: ask(price, 0.0).mw <= problem.budget_mw, start.watt, most)
        if not any(response.fits(problem) for response in seen):
            gpu = _lowest(lambda price: ask(0.0, price).gpus <= problem.gpu_limit, start.gpu, most)
            if not any(response.fits(problem) for response in seen):
                _both(problem, ask, watt, gpu, most)
    fitting = [response for response in seen if response.fits(problem)]
    cheapest = min(fitting, key=lambda response: response.cost, default=None)
    return Search(max(seen, key=lambda response: response.bound), cheapest)


def _both(problem: Problem, ask: Callable[[float, float], Response], watt: float, gpu: float, most: float) -> None:
    def watts_fit(price: float, gpu: float) -> bool:
        return ask(price, gpu).mw <= problem.budget_mw

    def gpus_fit(price: float, watt: float) -> bool:
        return ask(watt, price).gpus <= problem.gpu_limit

    for _ in range(ROUNDS):
        watt = _lowest(partial(watts_fit, gpu=gpu), watt, most)
        gpu = _lowest(partial(gpus_fit, watt=watt), gpu, most)
    while not ask(watt, gpu).fits(problem) and watt < most:
        watt, gpu = max(watt, LOWEST_PRICE) * 1.5, max(gpu, LOWEST_PRICE) * 1.5


def _lowest(enough: Callable[[float], bool], guess: float, most: float) -> float:
    """The lowest price that is ``enough``, by bisection of its logarithm; 0 if free.

    A guess from a coarser market is close: the bracket around it starts narrow and widens by squares.
    """
    if enough(0.0):
        return 0.0
    factor, high = (1.1, guess) if guess > 0 else (64.0, LOWEST_PRICE)
    if enough(high):
        low = high / factor
        while low > LOWEST_PRICE / 64 and enough(low):
            factor = min(64.0, factor**2)
            high, low = low, low / factor
    else:
        low, high = high, high * factor
        while not enough(high) and high < most:
            factor = min(64.0, factor**2)
            low, high = high, high * factor
    precision = PRECISE if guess > 0 else ROUGH
    while high / low > precision:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
