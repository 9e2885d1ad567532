"""Closing the gap that prices leave: the few choices per deployment whose reduced cost could still win, combined.

Owns the exact (or, for many deployments, beam-wide) search over the core. Must never return what does not fit. A choice
whose reduced cost exceeds its deployment's least by more than the gap between bound and best known can not be part of a
better answer; that leaves so few choices that combining them deployment by deployment is quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from planner.core.allocation.optimiser.dual_prices import Market, Prices, Response
from planner.core.allocation.optimiser.exact import Choice
from planner.core.allocation.optimiser.problem import Floats, Ints, Problem, carried

SLACK = 1e-6
MANY_STEPS = 4096

_Table = TypeVar("_Table", Floats, Ints)


@dataclass(frozen=True, slots=True)
class ReducedCostLimit:
    """How much is looked at: counts per pool and level, choices per deployment, partial answers kept."""

    counts: int
    choices: int
    partial: int


def width_for(deployments: int) -> ReducedCostLimit:
    """Everything for a handful of deployments; a narrow beam for many, whose relative gap is small anyway."""
    if deployments <= 4:
        return ReducedCostLimit(counts=16, choices=200, partial=1500)
    if deployments <= 8:
        return ReducedCostLimit(counts=16, choices=96, partial=1000)
    if deployments <= 30:
        return ReducedCostLimit(counts=3, choices=40, partial=400)
    return ReducedCostLimit(counts=2, choices=8, partial=60)


@dataclass(frozen=True, slots=True)
class ColumnCache:
    """One deployment's choices, best first. Made into ``Choice`` only when taken: most never are.

    ``table`` (4, M): watts above reserve, GPUs, cost, and how much worse than the best at the prices.
    """

    columns: Ints
    """(pools, M)"""
    steps: Ints
    """(pools, M)"""
    share: Floats
    """(M) the load that the caps really carry."""
    table: Floats

    def choice(self, i: int) -> Choice:
        mw, gpus, cost, _ = self.table[:, i].tolist()
        return Choice(
            tuple(self.columns[:, i].tolist()), tuple(self.steps[:, i].tolist()), cost, mw, gpus, float(self.share[i])
        )


def columns(market: Market, at: Response, gap: float, width: ReducedCostLimit) -> list[ColumnCache]:
    """Each deployment's choices of reduced cost within ``gap`` of its least, best first."""
    problem, levels = market.problem, market.at
    watt, gpu = at.prices.watt / 1000, at.prices.gpu
    reduced = levels.cost + watt * levels.mw + gpu * problem.gpus[:, None, :]
    depth = min(width.counts, reduced.shape[2])
    if depth < reduced.shape[2]:
        near = np.argpartition(reduced, depth - 1, axis=2)[:, :, :depth]
        near.sort(axis=2)
    else:
        near = np.broadcast_to(np.arange(depth), (*reduced.shape[:2], depth))
    values = np.take_along_axis(reduced, near, axis=2)
    return [_of_one(market, d, near, values, at.prices, gap, width) for d in range(problem.deployments)]


def _of_one(
    market: Market, d: int, near: Ints, values: Floats, prices: Prices, gap: float, width: ReducedCostLimit
) -> ColumnCache:
    problem = market.problem
    pools = problem.pools_of(d)
    total = _summed([values[row] for row in pools])
    names = _summed([_named(market, row, near) * MANY_STEPS ** (2 * i) for i, row in enumerate(pools)])
    used = _summed([problem.gpus[row][near[row]] for row in pools])
    mw = _summed([np.take_along_axis(market.at.mw[row], near[row], axis=1) for row in pools])
    total = total + float(problem.worth[d]) * (1 - market.share[d])[:, None]
    total = np.where(used <= problem.most_gpus[d], total, np.inf)
    # Neighbouring levels of one and the same caps are one choice: the higher level tells what it carries.
    total[:-1][names[:-1] == names[1:]] = np.inf
    least = float(total.min())
    flat = np.flatnonzero(total.ravel() <= least + gap + SLACK)
    mw, used, total = mw.ravel()[flat], used.ravel()[flat], total.ravel()[flat]
    table = np.array([mw, used, total - prices.watt / 1000 * mw - prices.gpu * used, total - least])
    kept = _undominated(table)
    if len(kept) > width.choices:
        kept = _varied(table, kept, width.choices)
    level, combination = np.divmod(flat[kept], near.shape[2] ** len(pools))
    return _shelf(market, d, level, _picked(near, pools, level, combination), prices, least)


def _shelf(market: Market, d: int, level: Ints, columns: Ints, prices: Prices, least: float) -> ColumnCache:
    """The choices as the caps really carry them: a level's caps may carry more than the level."""
    problem, at = market.problem, market.at
    rows = np.array(problem.pools_of(d))[:, None]
    steps = at.steps[rows, level, columns]
    share = carried(problem.speed[rows, steps - problem.floor[rows]], problem.need[rows, columns])
    share = np.minimum(1.0, share.min(axis=0))
    mw, gpus = at.mw[rows, level, columns].sum(axis=0), problem.gpus[rows, columns].sum(axis=0)
    cost = at.cost[rows, level, columns].sum(axis=0) + problem.worth[d] * (1.0 - share)
    slack = np.maximum(0.0, cost + prices.watt / 1000 * mw + prices.gpu * gpus - least)
    order = np.argsort(slack, kind="stable")
    table = np.array([mw, gpus, cost, slack])
    return ColumnCache(columns[:, order], steps[:, order], share[order], table[:, order])


def _summed(tables: list[_Table]) -> _Table:
    """(K, M) tables summed over all combinations of columns: the last table varies fastest."""
    total = tables[0]
    for table in tables[1:]:
        total = (total[:, :, None] + table[:, None, :]).reshape(len(total), -1)
    return total


def _named(market: Market, row: int, near: Ints) -> Ints:
    """A number for each level's counts and caps."""
    taken: Ints = np.take_along_axis(market.at.steps[row], near[row], axis=1) + MANY_STEPS * near[row]
    return taken


def _picked(near: Ints, pools: range, level: Ints, combination: Ints) -> Ints:
    """(pools, M) count columns of the combinations."""
    found: list[Ints] = []
    for row in reversed(pools):
        combination, place = np.divmod(combination, near.shape[2])
        found.append(near[row, level, place])
    return np.array(found[::-1])


def combine(problem: Problem, choices: list[ColumnCache], gap: float, width: ReducedCostLimit) -> list[Choice] | None:
    """The cheapest combination that fits, one choice per deployment; None where none of those kept fits."""
    order = sorted(range(len(choices)), key=lambda d: len(choices[d].share))
    tables = [choices[d].table for d in order]
    # What the deployments still to come need at least: a partial answer that leaves less is dead.
    rest_mw = np.cumsum([table[0].min() for table in reversed(tables)])[::-1]
    rest_gpus = np.cumsum([table[1].min() for table in reversed(tables)])[::-1]
    state = np.zeros((4, 1))
    trail: list[tuple[Ints, Ints]] = []
    for i, table in enumerate(tables):
        grown = (state[:, :, None] + table[:, None, :]).reshape(4, -1)
        after_mw = rest_mw[i + 1] if i + 1 < len(tables) else 0.0
        after_gpus = rest_gpus[i + 1] if i + 1 < len(tables) else 0.0
        alive = (grown[0] + after_mw <= problem.budget_mw) & (grown[1] + after_gpus <= problem.gpu_limit)
        alive &= grown[3] <= gap + SLACK
        kept = np.flatnonzero(alive)
        if not len(kept):
            return None
        kept = kept[_undominated(grown[:, kept])]
        if len(kept) > width.partial:
            kept = _varied(grown, kept, width.partial)
        trail.append((kept // table.shape[1], kept % table.shape[1]))
        state = grown[:, kept]
    return _traced(choices, order, trail, int(np.argmin(state[2])))


def _varied(grown: Floats, kept: Ints, most: int) -> Ints:
    """The frontiers of watts and of GPUs against cost, then the least slack: slack alone runs into a budget's wall."""
    by_mw = _thinned(kept[_frontier(grown[0, kept], grown[2, kept])], most // 2)
    by_gpus = _thinned(kept[_frontier(grown[1, kept], grown[2, kept])], most // 8)
    chosen = np.concatenate([by_mw, by_gpus])
    by_slack = kept[np.argsort(grown[3, kept], kind="stable")[: most - len(chosen)]]
    return np.unique(np.concatenate([chosen, by_slack]))


def _frontier(use: Floats, cost: Floats) -> Ints:
    """Indices of those that nothing of no more use undercuts."""
    order = np.lexsort((cost, use))
    best = np.minimum.accumulate(cost[order])
    return order[np.r_[True, cost[order][1:] < best[:-1]]]


def _thinned(indices: Ints, most: int) -> Ints:
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(np.int64)]


def _undominated(table: Floats) -> Ints:
    """Indices of answers that none of as many GPUs and no more watts undercuts."""
    order = np.lexsort((table[2], table[0], table[1]))
    gpus, cost = table[1, order], table[2, order]
    group = np.cumsum(np.r_[0, gpus[1:] != gpus[:-1]])
    # Each group of equal GPU counts lies below all earlier ones, so that one running minimum serves them all.
    shifted = cost - group * (np.ptp(cost) + 1.0) * 2
    best = np.minimum.accumulate(shifted)
    return order[np.r_[True, shifted[1:] < best[:-1]]]


def _traced(choices: list[ColumnCache], order: list[int], trail: list[tuple[Ints, Ints]], end: int) -> list[Choice]:
    found: dict[int, Choice] = {}
    for d, (parent, picked) in zip(reversed(order), reversed(trail), strict=True):
        found[d] = choices[d].choice(int(picked[end]))
        end = int(parent[end])
    return [found[d] for d in range(len(choices))]
