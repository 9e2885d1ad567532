"""Deployments of one or two pools, exactly: each with its own watts and GPUs, all of them in one array.

Owns the exact choice of counts and caps. Must never spend more than a deployment is handed. The share rises with the
cap, so that for every option of one pool and every count of the other only the dearest cap that fits can be best; and
among equals only the lowest cap that keeps the share can be cheapest, for draw rises with the cap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.core.allocation.optimiser.problem import DRAIN, STEP_MW, Floats, Ints, Problem

NOTHING = 1e-3
"""The score of a deployment that serves nobody: its logarithm must stay finite."""
CLOSE = 1e-12


@dataclass(frozen=True, slots=True)
class Pairs:
    """(D) two rows each: the pool whose options are all looked at, and the one whose cap follows."""

    left: Ints
    right: Ints


@dataclass(frozen=True, slots=True)
class Others:
    """(D) what the pools that are settled make good, carry and keep: 1 where there are none."""

    share: Floats
    carried: Floats
    kept: Floats


@dataclass(frozen=True, slots=True)
class Picked:
    """(D) count columns and cap steps of both pools; ``score`` 0..1, negative where nothing fits."""

    columns: tuple[Ints, Ints]
    steps: tuple[Ints, Ints]
    score: Floats


def score(share: Floats, carried: Floats, kept: Floats) -> Floats:
    """0..1: the predicted share of good requests, a little for what is carried, less for replicas given up."""
    total: Floats = (share + DRAIN * carried) / (1.0 + DRAIN) * kept
    return total


def no_others(deployments: int) -> Others:
    """Deployments that have no further pools."""
    ones = np.ones(deployments)
    return Others(ones, ones, ones)


@dataclass(frozen=True, slots=True)
class _Steps:
    """(D, M, N) for each option of the left pool and count of the right one: both sides' values."""

    problem: Problem
    right: Ints
    left_share: Floats
    left_carried: Floats
    kept: Floats

    def score(self, where: Ints, cell: Ints) -> Floats:
        """Scores at flat places ``where`` with the right pool's options ``cell``."""
        options = self.problem.options
        share = self.left_share.ravel()[where] * options.share.ravel()[cell]
        carried = np.minimum(self.left_carried.ravel()[where], options.carried.ravel()[cell])
        return score(share, carried, self.kept.ravel()[where])


def best(problem: Problem, pairs: Pairs, mw: Floats, gpus: Floats, others: Others) -> Picked:
    """Each deployment's best score within its ``mw`` (above reserve) and ``gpus``; among equals the cheapest."""
    options, left, right = problem.options, pairs.left, pairs.right
    d, wide = len(left), options.share.shape[2]
    n_left, n_right = int(problem.width[left].max()), int(problem.width[right].max())
    s_left = int(problem.last[left].max()) + 1
    m = n_left * s_left
    shape = (d, m, n_right)
    held = problem.gpus[left, :n_left, None]
    fits = np.isfinite(options.cost[left, :n_left, :s_left]).reshape(d, m, 1)
    rest_mw = (mw[:, None, None] - held * problem.caps[left, None, :s_left]).reshape(d, m, 1)
    rest_gpus = np.broadcast_to((gpus[:, None, None] - held), (d, n_left, s_left)).reshape(d, m, 1)
    asked = problem.gpus[right, None, :n_right]
    top = _dearest(problem, right, rest_mw, asked)
    ok = fits & (top >= 0) & (asked <= rest_gpus) & np.isfinite(problem.fixed[right, None, :n_right])
    top = np.maximum(top, 0)
    base = ((right[:, None, None] * problem.count.shape[1] + np.arange(n_right)) * wide) + np.zeros(shape, np.int64)
    share = (others.share[:, None, None] * options.share[left, :n_left, :s_left]).reshape(d, m, 1)
    carried = np.minimum(others.carried[:, None, None], options.carried[left, :n_left, :s_left]).reshape(d, m, 1)
    kept = np.broadcast_to(problem.kept[left, :n_left, None], (d, n_left, s_left)).reshape(d, m, 1)
    kept = kept * problem.kept[right, None, :n_right] * others.kept[:, None, None]
    cell = base + top
    scores = score(share * options.share.ravel()[cell], np.minimum(carried, options.carried.ravel()[cell]), kept)
    scores = np.where(ok, scores, -1.0).reshape(d, -1)
    most = scores.max(axis=1)
    near = np.flatnonzero(scores >= np.where(most >= 0.0, most * (1.0 - problem.alike) - CLOSE, np.inf)[:, None])
    steps = _Steps(problem, right, *(np.broadcast_to(table, shape) for table in (share, carried, kept)))
    enough = (most * (1.0 - problem.alike) - CLOSE)[near // scores.shape[1]]
    lowest = _lowest(steps, near, base.ravel()[near], top.ravel()[near], enough)
    return _cheapest(problem, pairs, shape, s_left, near, lowest, steps, base, most)


def _dearest(problem: Problem, right: Ints, rest_mw: Floats, asked: Floats) -> Ints:
    """The highest cap step that the rest pays for; negative where none does."""
    floor = problem.floor[right, None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.floor((rest_mw / asked + problem.reserve_mw) / STEP_MW + 1e-9)
    steps = np.where(asked > 0.0, steps, np.where(rest_mw >= 0.0, np.inf, -np.inf))
    found: Ints = np.clip(steps - floor, -1, problem.last[right, None, None]).astype(np.int64)
    return found


def _lowest(steps: _Steps, where: Ints, base: Ints, top: Ints, enough: Floats) -> Ints:
    """The lowest cap of the right pool that keeps ``enough``, by bisection: the score rises with it."""
    low, high = np.zeros_like(top), top
    for _ in range(int(top.max(initial=0)).bit_length()):
        middle = (low + high) // 2
        good = steps.score(where, base + middle) >= enough
        high, low = np.where(good, middle, high), np.where(good, low, np.minimum(middle + 1, high))
    return high


def _cheapest(
    problem: Problem,
    pairs: Pairs,
    shape: tuple[int, int, int],
    s_left: int,
    near: Ints,
    lowest: Ints,
    steps: _Steps,
    base: Ints,
    most: Floats,
) -> Picked:
    """Of the places ``near``, each deployment's cheapest; ties go to the earlier option: the same answer every time."""
    d, place = np.divmod(near, shape[1] * shape[2])
    option, column = np.divmod(place, shape[2])
    left_column, left_step = np.divmod(option, s_left)
    cell = base.ravel()[near] + lowest
    cost = problem.options.cost[pairs.left[d], left_column, left_step] + problem.options.cost.ravel()[cell]
    picked = np.zeros(shape[0], dtype=np.int64)
    order = np.lexsort((cost, d))
    has, first = np.unique(d[order], return_index=True)
    picked[has] = order[first]
    found = np.full(shape[0], -1.0)
    if len(near):
        found = np.where(most >= 0.0, steps.score(near[picked], cell[picked]), -1.0)
    else:
        return Picked((picked, picked), (picked, picked), found)
    return Picked((left_column[picked], column[picked]), (left_step[picked], lowest[picked]), found)
