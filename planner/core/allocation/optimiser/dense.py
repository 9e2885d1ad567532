"""One deployment of two small pools: all options of one pool beside all counts of the other, in a single table.

Owns speed only: its answer is the same as that of ``staircase.best``, without the search that spares large tables.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from planner.core.allocation.optimiser.padded_tables import Floats, Ints
from planner.core.allocation.optimiser.problem import Problem
from planner.core.allocation.optimiser.staircase import CLOSE, over_time, score

LARGEST = 20_000
"""Cells of the table: beyond them leaving out hopeless pairs of counts costs less than looking at all of them."""

Choice: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Count columns and cap steps of the left and the right pool."""


def fits(problem: Problem, left: int, right: int) -> bool:
    """Whether the table of this pair is small enough."""
    cells = int(problem.width[left]) * (int(problem.last[left]) + 1) * int(problem.width[right])
    return cells <= LARGEST


def best(problem: Problem, left: int, right: int, mw: float, gpus: float) -> Choice | None:
    """The best score within ``mw`` (above reserve) and ``gpus``, among equals the cheapest; None where nothing fits."""
    n, m, wide = int(problem.width[left]), int(problem.width[right]), int(problem.last[left]) + 1
    one, two = problem.gpus[left, :n], problem.gpus[right, :m]
    top = _dearest(problem, right, mw - one[:, None] * problem.caps[left, :wide], two)
    fitting = (top >= 0) & (one[:, None] + two <= gpus)[:, None, :]
    options, caps = problem.options, problem.speed.shape[1]
    share, carried = options.share[left, :n, :wide, None], options.carried[left, :n, :wide, None]
    starting = float(problem.starting[problem.owner[min(left, right)]])
    first, firsts = options.first[left, :n, :wide, None], options.first[right]
    kept = (problem.kept[left, :n, None] * problem.kept[right, :m])[:, None, :]
    shares, carries = options.share[right], options.carried[right]
    cell = np.maximum(top, 0) + np.arange(0, m * caps, caps)
    made = share * shares.take(cell)
    if starting:
        made = over_time(made, first * firsts.take(cell), starting)
    scores = score(made, np.minimum(carried, carries.take(cell)), kept)
    scores[~fitting] = -1.0
    most = float(scores.max())
    if most < 0.0:
        return None
    enough = most * (1.0 - problem.alike) - CLOSE
    column, step, beside = (scores >= enough).nonzero()
    share, carried = options.share[left, column, step][:, None], options.carried[left, column, step][:, None]
    first, kept = options.first[left, column, step][:, None], kept[column, 0, beside][:, None]
    # The share rises with the cap: the first cap that reaches it is the lowest, and at most the highest that fits.
    made = over_time(share * shares[beside], first * firsts[beside], starting)
    reached = score(made, np.minimum(carried, carries[beside]), kept) >= enough
    low = np.maximum(reached.argmax(axis=1), np.minimum(problem.useful[right], top[column, step, beside]))
    cost = problem.cost(np.array([[left], [right]]), np.array([column, beside]), np.array([step, low]))
    at = int((cost[0] + cost[1]).argmin())
    return (int(column[at]), int(beside[at])), (int(step[at]), int(low[at]))


def _dearest(problem: Problem, row: int, rest_mw: Floats, asked: Floats) -> Ints:
    """(N, S, M) the highest cap step that the rest (N, S) pays for at each count's GPUs (M); negative where none."""
    steps = rest_mw[:, :, None] / np.maximum(asked, 1e-9)
    steps += problem.reserve_mw
    steps /= problem.step_mw
    steps += 1e-9
    np.floor(steps, out=steps)
    steps -= problem.floor[row]
    if not asked[0]:
        steps[:, :, 0] = np.where(rest_mw >= 0.0, np.inf, -1.0)
    np.maximum(steps, -1, out=steps)
    np.minimum(steps, problem.last[row], out=steps)
    return steps.astype(np.int64)
