"""One deployment, exactly: every pair of counts, every level of load at which a cap step matters.

Owns the exact search over the small grid. Must never spend more than the watts and GPUs it is handed. The largest
feasible load is found by bisection (watts rise with load), and only levels that could still cost less are tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.core.allocation.optimiser.problem import Floats, Ints, Levels, Problem, carried, levels

MAX_COMBINATIONS = 20_000
CHUNK = 32
EXACT_LIMIT = 24
"""Levels asked for at once while the largest that fits is looked for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One deployment's counts (column of the tables) and cap steps by pool, in the order of its rows."""

    columns: tuple[int, ...]
    steps: tuple[int, ...]
    cost: float
    mw: float
    """Above the reserve of its GPUs."""
    gpus: float
    share: float


def combinations(problem: Problem, deployment: int) -> int:
    """How many count combinations a deployment has."""
    rows = problem.pools_of(deployment)
    return int(np.prod([np.isfinite(problem.fixed[row]).sum() for row in rows])) if len(rows) else 0


def best(problem: Problem, deployment: int, mw: float, gpus: float) -> Choice | None:
    """The cheapest choice within ``mw`` (above reserve) and ``gpus``; None where even the smallest does not fit."""
    rows = np.array(problem.pools_of(deployment), dtype=np.int64)
    gpus = min(gpus, float(problem.most_gpus[deployment]))
    sums = _folded([problem.gpus[row] for row in rows])
    allowed = sums <= gpus
    fixed = _folded(
        [problem.fixed[row] + problem.curve[row, 5] * problem.gpus[row] * problem.curve[row, 3] for row in rows]
    )
    least = float(fixed[allowed].min(initial=np.inf))
    every = shares(problem, rows, float(problem.top[deployment]))
    end = _most(problem, rows, every, allowed, mw)
    if end < 0:
        return None
    found: Choice | None = None
    worth = float(problem.worth[deployment])
    while end >= 0:
        start = max(0, end - CHUNK + 1)
        chunk = every[start : end + 1]
        if found is not None and worth * (1 - chunk[-1]) + least >= found.cost:
            break
        seen = _cheapest(problem, rows, chunk, allowed, mw, worth)
        if seen is not None and (found is None or seen.cost < found.cost):
            found = seen
        end = start - 1
    return found


def shares(problem: Problem, rows: Ints, top: float) -> Floats:
    """Every load level at which some pool's cap or count is just enough, rising; 0 and the top are among them."""
    found = [np.array([0.0, top])]
    for row in rows:
        real = np.isfinite(problem.fixed[row])
        steps = int(problem.ceiling[row] - problem.floor[row]) + 1
        found.append(carried(problem.speed[row, :steps, None], problem.need[row, real][None, :]).ravel())
    return np.unique(np.minimum(np.concatenate(found), top))


def _most(problem: Problem, rows: Ints, shares: Floats, allowed: np.ndarray, mw: float) -> int:
    """The index of the largest level that fits; -1 for none."""
    low, high = -1, len(shares) - 1
    while low < high:
        # Asking for many levels costs little more than asking for one.
        asked = np.unique(np.linspace(low + 1, high, EXACT_LIMIT).astype(np.int64))
        at = levels(problem, rows, np.broadcast_to(shares[asked], (len(rows), len(asked))))
        watts = _folded_levels(np.where(np.isfinite(at.cost), at.mw, np.inf))
        fits = (watts[:, allowed] <= mw).any(axis=1)
        good = int(fits.sum())  # the leading ones: watts rise with load
        low, high = (
            int(asked[good - 1]) if good else low,
            int(asked[good]) - 1 if good < len(asked) else high,
        )
    return low


def _cheapest(
    problem: Problem, rows: Ints, shares: Floats, allowed: np.ndarray, mw: float, worth: float
) -> Choice | None:
    at = levels(problem, rows, np.broadcast_to(shares, (len(rows), len(shares))))
    watts, cost = _folded_levels(at.mw), _folded_levels(at.cost)
    cost = np.where((watts <= mw) & allowed, cost, np.inf) + worth * (1 - shares[:, None])
    # Ties go to the larger load, then to fewer replicas: the answer must not hang on rounding.
    cost = cost[::-1]
    flat = int(np.argmin(cost))
    level, combination = divmod(flat, cost.shape[1])
    if not np.isfinite(cost[level, combination]):
        return None
    return chosen(problem, rows, at, len(shares) - 1 - level, _columns(problem, rows, combination), worth)


def chosen(problem: Problem, rows: Ints, at: Levels, level: int, columns: tuple[int, ...], worth: float) -> Choice:
    """The choice of ``columns`` at a level, with the share that its caps really carry."""
    steps = tuple(int(at.steps[i, level, column]) for i, column in enumerate(columns))
    share = 1.0
    for row, column, step in zip(rows, columns, steps, strict=True):
        speed = problem.speed[row, step - problem.floor[row]]
        share = min(share, float(carried(speed, problem.need[row, column])))
    cost = sum(float(at.cost[i, level, column]) for i, column in enumerate(columns)) + worth * (1 - share)
    mw = sum(float(at.mw[i, level, column]) for i, column in enumerate(columns))
    gpus = sum(float(problem.gpus[row, column]) for row, column in zip(rows, columns, strict=True))
    return Choice(columns, steps, cost, mw, gpus, share)


def _columns(problem: Problem, rows: Ints, combination: int) -> tuple[int, ...]:
    width = problem.need.shape[1]
    found: list[int] = []
    for _ in rows:
        combination, column = divmod(combination, width)
        found.append(column)
    return tuple(reversed(found))


def _folded(tables: list[Floats]) -> Floats:
    """(N) tables summed over all combinations: the last table varies fastest."""
    total = tables[0]
    for table in tables[1:]:
        total = (total[:, None] + table[None, :]).ravel()
    return total


def _folded_levels(tables: Floats) -> Floats:
    """(R, K, N) summed over all combinations: (K, N ** R)."""
    total: Floats = tables[0]
    for table in tables[1:]:
        total = (total[:, :, None] + table[:, None, :]).reshape(len(total), -1)
    return total
