"""Prices of a watt and of a GPU, such that deployments that each mind only themselves share what there is.

Owns the dual search (one Lagrange multiplier for watts, one for GPUs). Must never be the last word: prices leave a gap
that the core search closes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from planner.core.optimise.problem import Floats, Ints, Levels, Problem

BISECTIONS = 11
ROUNDS = 3
LOWEST_PRICE = 1e-2
HIGHEST_PRICE = 1e15


@dataclass(frozen=True, slots=True)
class Market:
    """A problem at certain load levels: ``share`` is (D, K). ``limited``: deployments whose own GPU limit can bind."""

    problem: Problem
    share: Floats
    at: Levels
    limited: Ints


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

    def fits(self, problem: Problem) -> bool:
        return self.mw <= problem.budget_mw and self.gpus <= problem.gpu_limit


def limited(problem: Problem) -> Ints:
    """Deployments that could ask for more GPUs than their own limit."""
    most = np.where(np.isfinite(problem.fixed), problem.gpus, 0.0).max(axis=1, initial=0.0)
    asked = np.add.reduceat(most, problem.first[:-1]) if len(most) else np.zeros(0)
    return np.flatnonzero(asked > problem.most_gpus)


def respond(market: Market, prices: Prices) -> Response:
    """Every deployment's cheapest choice, watts and GPUs paid for."""
    problem, at = market.problem, market.at
    reduced = at.cost + prices.watt / 1000 * at.mw + prices.gpu * problem.gpus[:, None, :]
    column = reduced.argmin(axis=2)
    cheapest = np.take_along_axis(reduced, column[:, :, None], axis=2)[:, :, 0]
    for d in market.limited:
        _within_own_limit(problem, int(d), reduced, column, cheapest)
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


def _within_own_limit(problem: Problem, d: int, reduced: Floats, column: Ints, cheapest: Floats) -> None:
    """Rewrites one deployment's answers so that its pools together keep its own GPU limit.

    Two pools: exact, by running minima over the second pool's rising counts. Others were cut to fit before.
    """
    rows = problem.pools_of(d)
    limit = float(problem.most_gpus[d])
    if len(rows) != 2:
        return
    a, b = rows
    size = problem.gpus.shape[1]
    real = int(np.isfinite(problem.fixed[b]).sum())
    left = np.searchsorted(problem.gpus[b, :real], limit - problem.gpus[a], side="right") - 1
    running = np.minimum.accumulate(reduced[b], axis=1)
    at = np.maximum.accumulate(np.where(reduced[b] <= running, np.arange(size), 0), axis=1)
    total = np.where(left >= 0, reduced[a] + running[:, np.maximum(left, 0)], np.inf)
    first = total.argmin(axis=1)
    second = at[np.arange(len(first)), np.maximum(left[first], 0)]
    index = np.arange(len(first))
    column[a], column[b] = first, second
    cheapest[a] = np.where(np.isfinite(total[index, first]), reduced[a][index, first], np.inf)
    cheapest[b] = reduced[b][index, second]


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
        watt = _lowest(lambda price: ask(price, 0.0).mw <= problem.budget_mw, start.watt)
        if not any(response.fits(problem) for response in seen):
            gpu = _lowest(lambda price: ask(0.0, price).gpus <= problem.gpu_limit, start.gpu)
            if not any(response.fits(problem) for response in seen):
                _both(problem, ask, watt, gpu)
    fitting = [response for response in seen if response.fits(problem)]
    cheapest = min(fitting, key=lambda response: response.cost, default=None)
    return Search(max(seen, key=lambda response: response.bound), cheapest)


def _both(problem: Problem, ask: Callable[[float, float], Response], watt: float, gpu: float) -> None:
    def watts_fit(price: float, gpu: float) -> bool:
        return ask(price, gpu).mw <= problem.budget_mw

    def gpus_fit(price: float, watt: float) -> bool:
        return ask(watt, price).gpus <= problem.gpu_limit

    for _ in range(ROUNDS):
        watt = _lowest(partial(watts_fit, gpu=gpu), watt)
        gpu = _lowest(partial(gpus_fit, watt=watt), gpu)
    while not ask(watt, gpu).fits(problem) and watt < HIGHEST_PRICE:
        watt, gpu = max(watt, LOWEST_PRICE) * 1.5, max(gpu, LOWEST_PRICE) * 1.5


def _lowest(enough: Callable[[float], bool], guess: float) -> float:
    """The lowest price that is ``enough``, to within a few thousandths, by bisection of its logarithm; 0 if free."""
    if enough(0.0):
        return 0.0
    high = max(guess, LOWEST_PRICE)
    factor = 2.0 if guess > 0 else 64.0
    while not enough(high) and high < HIGHEST_PRICE:
        high *= factor
    low = high / factor if high > max(guess, LOWEST_PRICE) else high
    while low > LOWEST_PRICE / 64 and enough(low):
        high, low = low, low / factor
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5
        if high / low < 1.003:
            break
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
