"""Closing the gap that prices leave: the few choices per deployment whose reduced cost could still win, combined.

Owns the exact (or, for many deployments, beam-wide) search over the core. Must never return what does not fit. A choice
whose reduced cost exceeds its deployment's least by more than the gap between bound and best known can not be part of a
better answer; that leaves so few choices that combining them deployment by deployment is quick.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.core.optimise.exact import Choice, chosen
from planner.core.optimise.prices import Market, Prices, Response
from planner.core.optimise.problem import Floats, Ints, Problem

SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Width:
    """How much is looked at: counts per pool and level, choices per deployment, partial answers kept."""

    counts: int
    choices: int
    partial: int


def width_for(deployments: int) -> Width:
    """Everything for a handful of deployments; a narrow beam for many, whose relative gap is small anyway."""
    if deployments <= 8:
        return Width(counts=24, choices=120, partial=1200)
    if deployments <= 30:
        return Width(counts=3, choices=40, partial=400)
    return Width(counts=2, choices=8, partial=60)


@dataclass(frozen=True, slots=True)
class Column:
    """One deployment's choice, with how much worse than its best it is at the prices."""

    choice: Choice
    slack: float


def columns(market: Market, at: Response, gap: float, width: Width) -> list[list[Column]]:
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
    market: Market, d: int, near: Ints, values: Floats, prices: Prices, gap: float, width: Width
) -> list[Column]:
    problem = market.problem
    pools = problem.pools_of(d)
    rows = np.array(pools, dtype=np.int64)
    total = values[pools[0]]
    used = _gpus(problem, pools[0], near)
    for row in pools[1:]:
        total = (total[:, :, None] + values[row][:, None, :]).reshape(len(total), -1)
        used = (used[:, :, None] + _gpus(problem, row, near)[:, None, :]).reshape(len(total), -1)
    total = total + float(problem.worth[d]) * (1 - market.share[d])[:, None]
    total = np.where(used <= problem.most_gpus[d], total, np.inf)
    least = float(total.min())
    flat = np.flatnonzero(total.ravel() <= least + gap + SLACK)
    flat = flat[np.argsort(total.ravel()[flat], kind="stable")][: 2 * width.choices]
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], Column] = {}
    sub = _Rows(market, rows)
    for index in flat.tolist():
        level, combination = divmod(index, total.shape[1])
        picked = _picked(near, pools, level, combination)
        choice = sub.choice(level, picked)
        if (choice.columns, choice.steps) in found or not np.isfinite(choice.cost):
            continue
        paid = choice.cost + prices.watt / 1000 * choice.mw + prices.gpu * choice.gpus
        found[choice.columns, choice.steps] = Column(choice, max(0.0, paid - least))
        if len(found) >= width.choices:
            break
    return sorted(found.values(), key=lambda column: column.slack)


@dataclass(frozen=True, slots=True)
class _Rows:
    market: Market
    rows: Ints

    def choice(self, level: int, picked: tuple[int, ...]) -> Choice:
        problem, at = self.market.problem, self.market.at
        d = int(problem.owner[self.rows[0]])
        part = at.rows(problem.pools_of(d))
        return chosen(problem, self.rows, part, level, picked, float(problem.worth[d]))


def _gpus(problem: Problem, row: int, near: Ints) -> Floats:
    held: Floats = problem.gpus[row][near[row]]
    return held


def _picked(near: Ints, pools: range, level: int, combination: int) -> tuple[int, ...]:
    depth = near.shape[2]
    found: list[int] = []
    for row in reversed(pools):
        combination, place = divmod(combination, depth)
        found.append(int(near[row, level, place]))
    return tuple(reversed(found))


def combine(problem: Problem, choices: list[list[Column]], gap: float, width: Width) -> list[Choice] | None:
    """The cheapest combination that fits, one choice per deployment; None where none of those kept fits."""
    order = sorted(range(len(choices)), key=lambda d: len(choices[d]))
    tables = [_table(choices[d]) for d in order]
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


def _table(choices: list[Column]) -> Floats:
    return np.array([[c.choice.mw, c.choice.gpus, c.choice.cost, c.slack] for c in choices]).T


def _varied(grown: Floats, kept: Ints, most: int) -> Ints:
    """The best by slack, and the most frugal: without these a beam runs into the budget's wall."""
    by_slack = kept[np.argsort(grown[3, kept], kind="stable")[: most - most // 4]]
    by_mw = kept[np.argsort(grown[0, kept], kind="stable")[: most // 8]]
    by_gpus = kept[np.argsort(grown[1, kept], kind="stable")[: most // 8]]
    return np.unique(np.concatenate([by_slack, by_mw, by_gpus]))


def _undominated(table: Floats) -> Ints:
    """Indices of answers that no earlier one beats in watts, GPUs and cost; only equal GPU counts are compared."""
    order = np.lexsort((table[2], table[0], table[1]))
    gpus, cost = table[1, order], table[2, order]
    fresh = np.ones(len(order), dtype=np.bool_)
    start = np.flatnonzero(np.r_[True, gpus[1:] != gpus[:-1]])
    for begin, end in zip(start, np.r_[start[1:], len(order)], strict=True):
        best = np.minimum.accumulate(cost[begin:end])
        fresh[begin + 1 : end] = cost[begin + 1 : end] < best[:-1]
    return order[fresh]


def _traced(choices: list[list[Column]], order: list[int], trail: list[tuple[Ints, Ints]], end: int) -> list[Choice]:
    found: dict[int, Choice] = {}
    for d, (parent, picked) in zip(reversed(order), reversed(trail), strict=True):
        found[d] = choices[d][int(picked[end])].choice
        end = int(parent[end])
    return [found[d] for d in range(len(choices))]
