"""One deployment of two small pools: all options of one pool beside all counts of the other, in a single table.

Owns speed only: its answer is the same as that of ``staircase.best``, without the search that spares large tables.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from planner.core.allocation.optimiser.problem import STEP_MW, Floats, Ints, Problem
from planner.core.allocation.optimiser.staircase import CLOSE, score

LARGEST = 20_000
"""Cells of the table: beyond them leaving out hopeless pairs of counts costs less than looking at all of them."""

Choice: TypeAlias = tuple[tuple[int, int], tuple[int, int], float]
"""Count columns, cap steps and score of the left and the right pool."""


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
    top = np.maximum(top, 0)
    options, row = problem.options, np.arange(m)
    share, carried = options.share[left, :n, :wide, None], options.carried[left, :n, :wide, None]
    kept = (problem.kept[left, :n, None] * problem.kept[right, :m])[:, None, :]
    shares, carries = options.share[right], options.carried[right]
    scores = score(share * shares[row, top], np.minimum(carried, carries[row, top]), kept)
    scores = np.where(fitting, scores, -1.0)
    most = float(scores.max())
    if most < 0.0:
        return None
    enough = most * (1.0 - problem.alike) - CLOSE
    column, step, beside = (scores >= enough).nonzero()
    share, carried = options.share[left, column, step], options.carried[left, column, step]
    kept = kept[column, 0, beside]
    low, high = np.zeros_like(column), top[column, step, beside]
    for _ in range(int(high.max()).bit_length()):
        middle = (low + high) // 2
        reached = score(share * shares[beside, middle], np.minimum(carried, carries[beside, middle]), kept) >= enough
        high, low = np.where(reached, middle, high), np.where(reached, low, np.minimum(middle + 1, high))
    at = int((problem.cost(left, column, step) + problem.cost(right, beside, high)).argmin())
    a, b, cap_a, cap_b = int(column[at]), int(beside[at]), int(step[at]), int(high[at])
    found = (shares[b, cap_b] * share[at], np.minimum(carried[at], carries[b, cap_b]), kept[at])
    return (a, b), (cap_a, cap_b), float(score(*found))


def _dearest(problem: Problem, row: int, rest_mw: Floats, asked: Floats) -> Ints:
    """(N, S, M) the highest cap step that the rest (N, S) pays for at each count's GPUs (M); negative where none."""
    rest = rest_mw[:, :, None]
    steps = np.floor((rest / np.maximum(asked, 1e-9) + problem.reserve_mw) / STEP_MW + 1e-9) - problem.floor[row]
    if not asked[0]:
        steps[:, :, 0] = np.where(rest_mw >= 0.0, np.inf, -1.0)
    found: Ints = np.minimum(np.maximum(steps, -1), problem.last[row]).astype(np.int64)
    return found
