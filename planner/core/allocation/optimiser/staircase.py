"""Deployments of one or two pools, exactly: each with its own watts and GPUs, all of them in one array.

Owns the exact choice of counts and caps. Must never spend more than a deployment is handed. The share rises with the
cap, so that for every option of one pool and every count of the other only the highest cap that fits can be best; and
among equals only the lowest cap that keeps the share can be cheapest, because draw rises with the cap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.core.allocation.optimiser.padded_tables import Floats, Ints
from planner.core.allocation.optimiser.problem import DRAIN, Problem

NOTHING = 1e-3
"""The score of a deployment that serves no requests: its logarithm must stay finite."""
CLOSE = 1e-12


@dataclass(frozen=True, slots=True)
class Pairs:
    """(D) two rows each: the pool whose options are all examined, and the one whose cap follows."""

    left: Ints
    right: Ints

    def starting(self, problem: Problem) -> Floats:
        """(D) the part of the time in which replicas that are still to start serve nothing."""
        # One of the two may be the pool of no deployment, which comes last.
        found: Floats = problem.starting[problem.owner[np.minimum(self.left, self.right)]]
        return found


@dataclass(frozen=True, slots=True)
class Others:
    """(D) what the pools that are settled make good, at first and later, carry and keep: 1 where there are none."""

    share: Floats
    first: Floats
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


def over_time(share: Floats, first: Floats, starting: Floats | float) -> Floats:
    """The mean share over the time until the next change can help: ``first`` in its ``starting`` part, then ``share``.

    Both are products over all pools: a request needs every stage at the same time.
    """
    total: Floats = share + starting * (first - share)
    return total


def no_others(deployments: int) -> Others:
    """Deployments that have no further pools."""
    ones = np.ones(deployments)
    return Others(ones, ones, ones, ones)


@dataclass(frozen=True, slots=True)
class _Stairs:
    """(T) pairs of counts: a deployment ``d``, and a column of its left and of its right pool."""

    problem: Problem
    pairs: Pairs
    d: Ints
    left: Ints
    right: Ints
    others: Others

    def of(self, places: Ints) -> _Stairs:
        """The pairs at ``places``."""
        return replace(self, d=self.d[places], left=self.left[places], right=self.right[places])

    @property
    def base(self) -> Ints:
        """(T) where the options of the right pool's count begin in the flat tables."""
        counts, wide = self.problem.need.shape[1], self.problem.speed.shape[1]
        found: Ints = (self.pairs.right[self.d] * counts + self.right) * wide
        return found

    @property
    def kept(self) -> Floats:
        """(T)"""
        left, right = self.pairs.left[self.d], self.pairs.right[self.d]
        kept = self.problem.kept
        found: Floats = kept[left, self.left] * kept[right, self.right] * self.others.kept[self.d]
        return found

    def climb(self, mw: Floats) -> tuple[Floats, Ints]:
        """(T, S) the score at each cap of the left pool, -1 for none, and the right pool's highest cap beside it."""
        problem, options = self.problem, self.problem.options
        left, right = self.pairs.left[self.d], self.pairs.right[self.d]
        wide = int(problem.last[left].max()) + 1
        held = problem.gpus[left, self.left][:, None]
        rest = mw[self.d][:, None] - held * problem.caps[left, :wide]
        top = _dearest(problem, right[:, None], rest, problem.gpus[right, self.right][:, None])
        ok = (top >= 0) & (np.arange(wide) <= problem.last[left][:, None])
        top = np.maximum(top, 0)
        cell = self.base[:, None] + top
        share = self.others.share[self.d][:, None] * options.share[left, self.left, :wide] * options.share.take(cell)
        starting = self.pairs.starting(problem)
        if starting.any():
            first = (
                self.others.first[self.d][:, None] * options.first[left, self.left, :wide] * options.first.take(cell)
            )
            share = over_time(share, first, starting[self.d][:, None])
        carried = np.minimum(options.carried[left, self.left, :wide], options.carried.take(cell))
        carried = np.minimum(self.others.carried[self.d][:, None], carried)
        return np.where(ok, score(share, carried, self.kept[:, None]), -1.0), top

    def score(self, places: Ints, step_left: Ints, step_right: Ints) -> Floats:
        """Scores of single options: those of ``places`` at the given caps."""
        options, d = self.problem.options, self.d[places]
        one = (self.pairs.left[d], self.left[places], step_left)
        two = (self.pairs.right[d], self.right[places], step_right)
        share = self.others.share[d] * options.share[one] * options.share[two]
        first = self.others.first[d] * options.first[one] * options.first[two]
        share = over_time(share, first, self.pairs.starting(self.problem)[d])
        carried = np.minimum(options.carried[one], options.carried[two])
        return score(share, np.minimum(self.others.carried[d], carried), self.kept[places])


def best(problem: Problem, pairs: Pairs, mw: Floats, gpus: Floats, others: Others) -> Picked:
    """Each deployment's best score within its ``mw`` (above reserve) and ``gpus``; among equals the cheapest."""
    none = np.zeros(len(mw), dtype=np.int64)
    stairs, bound = _bounded(problem, pairs, mw, gpus, others)
    if not len(bound):
        return Picked((none, none), (none, none), np.full(len(mw), -1.0))
    enough = _promising(stairs, bound, mw)
    stairs = stairs.of(np.flatnonzero(bound >= enough[stairs.d]))
    scores, top = stairs.climb(mw)
    first = _firsts(stairs.d)
    most = np.full(len(mw), -1.0)
    most[stairs.d[first]] = np.maximum.reduceat(scores.max(axis=1), first)
    enough = np.where(most >= 0.0, most * (1.0 - problem.alike) - CLOSE, np.inf)
    near, step = np.nonzero(scores >= enough[stairs.d][:, None])
    lowest = _lowest(stairs, near, step, top[near, step], enough)
    return _cheapest(stairs.of(near), step, lowest, most)


def _bounded(problem: Problem, pairs: Pairs, mw: Floats, gpus: Floats, others: Others) -> tuple[_Stairs, Floats]:
    """All pairs of counts that fit, by deployment, with an upper bound of each one's score.

    The bound takes each pool as fast as if the other had its lowest cap.
    """
    left, right, options = pairs.left, pairs.right, problem.options
    n_left, n_right = int(problem.width[left].max()), int(problem.width[right].max())
    one, two = problem.gpus[left, :n_left, None], problem.gpus[right, None, :n_right]
    floors = problem.caps[:, 0]
    exists = np.isfinite(problem.fixed[left, :n_left, None] + problem.fixed[right, None, :n_right])
    top_two = _dearest(problem, right[:, None, None], mw[:, None, None] - one * floors[left, None, None], two)
    ok = exists & (one + two <= gpus[:, None, None]) & (top_two >= 0)
    d, a, b = np.nonzero(ok)
    stairs = _Stairs(problem, pairs, d, a, b, others)
    row_one, row_two = left[d], right[d]
    rest = mw[d] - problem.gpus[row_two, b] * floors[row_two]
    top_one = np.maximum(0, _dearest(problem, row_one, rest, problem.gpus[row_one, a]))
    at_one, at_two = (row_one, a, top_one), (row_two, b, top_two[d, a, b])
    share = others.share[d] * options.share[at_one] * options.share[at_two]
    first = others.first[d] * options.first[at_one] * options.first[at_two]
    share = over_time(share, first, pairs.starting(problem)[d])
    carried = np.minimum(np.minimum(options.carried[at_one], options.carried[at_two]), others.carried[d])
    return stairs, score(share, carried, stairs.kept)


def _promising(stairs: _Stairs, bound: Floats, mw: Floats) -> Floats:
    """(D) a score that some option of a deployment reaches, less what counts as equal: of its most promising counts."""
    order = np.lexsort((-bound, stairs.d))
    first = _firsts(stairs.d[order])
    reached = np.full(len(mw), -1.0)
    if len(first) < len(bound):
        leading = stairs.of(order[first])
        reached[leading.d] = leading.climb(mw)[0].max(axis=1)
    enough: Floats = reached * (1.0 - stairs.problem.alike) - CLOSE
    return enough


def _firsts(sorted_numbers: Ints) -> Ints:
    """Where each number of a sorted row appears first."""
    return np.flatnonzero(np.append(True, sorted_numbers[1:] != sorted_numbers[:-1]))


def _dearest(problem: Problem, rows: Ints, rest_mw: Floats, asked: Floats) -> Ints:
    """The highest cap step that the rest pays for; negative where none does."""
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.floor((rest_mw / asked + problem.reserve_mw) / problem.step_mw + 1e-9)
    steps = np.where(asked > 0.0, steps, np.where(rest_mw >= 0.0, np.inf, -np.inf))
    found: Ints = np.minimum(np.maximum(steps - problem.floor[rows], -1), problem.last[rows]).astype(np.int64)
    return found


def _lowest(stairs: _Stairs, near: Ints, step: Ints, top: Ints, enough: Floats) -> Ints:
    """The lowest cap of the right pool that keeps ``enough``, by bisection: the score rises with it."""
    options, d, base, kept = stairs.problem.options, stairs.d[near], stairs.base[near], stairs.kept[near]
    one = (stairs.pairs.left[d], stairs.left[near], step)
    share, first = stairs.others.share[d] * options.share[one], stairs.others.first[d] * options.first[one]
    starting = stairs.pairs.starting(stairs.problem)[d]
    carried = np.minimum(stairs.others.carried[d], options.carried[one])
    low, high, least = np.minimum(stairs.problem.useful[stairs.pairs.right[d]], top), top, enough[d]
    for _ in range(int(top.max(initial=0)).bit_length()):
        middle = (low + high) // 2
        cell = base + middle
        made = over_time(share * options.share.take(cell), first * options.first.take(cell), starting)
        good = score(made, np.minimum(carried, options.carried.take(cell)), kept) >= least
        high, low = np.where(good, middle, high), np.where(good, low, np.minimum(middle + 1, high))
    return high


def _cheapest(stairs: _Stairs, step: Ints, lowest: Ints, most: Floats) -> Picked:
    """Each deployment's cheapest option, of ``stairs`` by deployment; ties go to the earlier one: always the same."""
    problem, left, right = stairs.problem, stairs.pairs.left[stairs.d], stairs.pairs.right[stairs.d]
    cost = problem.cost(left, stairs.left, step) + problem.cost(right, stairs.right, lowest)
    first = _firsts(stairs.d)
    least = np.repeat(np.minimum.reduceat(cost, first), np.diff(np.append(first, len(cost))))
    ties = np.flatnonzero(cost == least)
    order = ties[np.lexsort((stairs.right[ties], step[ties], stairs.left[ties], stairs.d[ties]))]
    picked = order[_firsts(stairs.d[order])]
    has = stairs.d[picked]
    columns, steps = np.zeros((2, len(most)), dtype=np.int64), np.zeros((2, len(most)), dtype=np.int64)
    columns[:, has] = stairs.left[picked], stairs.right[picked]
    steps[:, has] = step[picked], lowest[picked]
    found = np.full(len(most), -1.0)
    found[has] = stairs.score(picked, step[picked], lowest[picked])
    return Picked((columns[0], columns[1]), (steps[0], steps[1]), found)
