"""A few deployments, pair by pair: two at a time share what both hold in the best way, until nothing changes.

Owns what prices cannot do: whole replicas, and the last watts. A deployment's frontier holds, by GPUs and watts, the
best score that any of its options near the price reaches; two frontiers are combined exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np

from planner.core.allocation.optimiser.padded_tables import Floats, Ints
from planner.core.allocation.optimiser.prices import Found, Market

JointValue: TypeAlias = Callable[[Sequence[int], Ints, Ints], Floats]
"""What combinations of options are worth: rows, (K, F) columns and steps -> (F)."""

OPTIONS, FOR_FEW, FEWEST = 96, 480, 4
"""Number of a pool's options that are examined (more for up to ``FEWEST`` deployments): those of the highest worth at
the prices, and the most frugal one. Where little is good, far from any price, fewer options missed a twentieth of the
score."""
OF_THREE, COUNTS_OF_THREE = 24, 8
"""The same where a deployment has three pools: their combinations are as many as those of two pools with more options.
As many again are spread over the best counts, so that the answers differ in GPUs, with the lowest cap of each."""
MOST_POOLS = 3
"""Deployments of more pools are shared by price alone."""
ROUNDS = 6
BETTER = 1e-9


@dataclass(frozen=True, slots=True)
class Frontier:
    """(F) undominated answers of one deployment, by rising GPUs and then watts; ``groups`` splits them by GPUs."""

    mw: Floats
    gpus: Floats
    value: Floats
    columns: Ints
    """(K, F)"""
    steps: Ints
    groups: tuple[slice, ...]

    def dearest(self, mw: Floats, gpus: Floats) -> tuple[Floats, Ints]:
        """The best value within each of the given watts and GPUs, and its place; -inf for none."""
        best, place = np.full(len(mw), -np.inf), np.zeros(len(mw), dtype=np.int64)
        for group in self.groups:
            at = np.searchsorted(self.mw[group], mw + 1e-6, side="right") - 1
            value = np.where(
                (at >= 0) & (self.gpus[group.start] <= gpus), self.value[group][np.maximum(at, 0)], -np.inf
            )
            better = value > best
            best, place = np.where(better, value, best), np.where(better, group.start + at, place)
        return best, place


def frontier(market: Market, rows: Sequence[int], own_gpus: float, joint: JointValue, found: Found) -> Frontier:
    """One deployment's frontier. ``joint`` values combinations of its pools' options."""
    problem = market.problem
    few = FOR_FEW if problem.deployments <= FEWEST else OPTIONS
    kept = [_near(market, row, found, few) if len(rows) < MOST_POOLS else _spread(market, row, found) for row in rows]
    sizes = [len(column) for column, _ in kept]
    grid = np.indices(sizes).reshape(len(sizes), -1)
    columns = np.array([kept[k][0][grid[k]] for k in range(len(rows))])
    places = np.array([kept[k][1][grid[k]] for k in range(len(rows))])
    cells = [market.problem.listed.start[row] + columns[k] for k, row in enumerate(rows)]
    mw = np.sum([market.mw[cell, places[k]] for k, cell in enumerate(cells)], axis=0)
    gpus = np.sum([problem.gpus[row, columns[k]] for k, row in enumerate(rows)], axis=0)
    steps = np.array([market.steps[cell, places[k]] for k, cell in enumerate(cells)])
    value = joint(rows, columns, steps)
    keep = np.flatnonzero((gpus <= own_gpus) & np.isfinite(value))
    order = keep[np.lexsort((-value[keep], mw[keep], gpus[keep]))]
    starts = np.flatnonzero(np.r_[True, np.diff(gpus[order]) > 0])
    parts = []
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        part = order[start:end]
        rising = np.maximum.accumulate(value[part])
        parts.append(part[np.r_[True, value[part][1:] > rising[:-1]]])
    chosen = np.concatenate(parts)
    ends = np.cumsum([len(part) for part in parts])
    groups = tuple(slice(int(end) - len(part), int(end)) for end, part in zip(ends, parts, strict=True))
    return Frontier(mw[chosen], gpus[chosen], value[chosen], columns[:, chosen], steps[:, chosen], groups)


def _near(market: Market, row: int, found: Found, most: int) -> tuple[Ints, Ints]:
    """(columns, places) of a pool's ``most`` best options at the prices, and of its smallest one."""
    value, mw, held = market.of(row)
    gpus = np.broadcast_to(held, value.shape)
    reduced = (value - found.watt * mw - found.gpu * gpus).ravel()
    real = np.flatnonzero(np.isfinite(reduced))
    if len(real) > most:
        best = real[np.argpartition(-reduced[real], most - 1)[:most]]
        frugal = real[np.lexsort((mw.ravel()[real], gpus.ravel()[real]))[:1]]
        real = np.unique(np.concatenate([best, frugal]))
    columns, places = np.divmod(real, value.shape[1])
    return columns, places


def _spread(market: Market, row: int, found: Found) -> tuple[Ints, Ints]:
    """(columns, places) of one of three pools: the best at the prices, and of the best counts the best caps and the
    lowest.
    """
    value, mw, gpus = market.of(row)
    reduced = value - found.watt * mw - found.gpu * gpus
    counts = np.argsort(-reduced.max(axis=1), kind="stable")[:COUNTS_OF_THREE]
    counts = np.sort(counts[np.isfinite(reduced[counts].max(axis=1))])
    each = max(1, OF_THREE // len(counts) - 1)
    caps = np.argsort(-reduced[counts], axis=1, kind="stable")[:, :each]
    taken = np.zeros(reduced.shape, dtype=np.bool_)
    taken[counts[:, None], caps] = True
    taken[counts, 0] = True
    taken.ravel()[np.argsort(-reduced, axis=None, kind="stable")[:OF_THREE]] = True
    columns, places = np.nonzero(taken & np.isfinite(reduced))
    return columns, places


def shared(frontiers: Sequence[Frontier], budget_mw: float, gpu_limit: float, start: Sequence[int]) -> list[int]:
    """Places on the frontiers that no pair can better, from ``start``, which fits."""
    at = list(start)
    for _ in range(ROUNDS):
        moved = False
        for i, j in combinations(range(len(frontiers)), 2):
            others = [d for d in range(len(frontiers)) if d not in (i, j)]
            mw = budget_mw - sum(float(frontiers[d].mw[at[d]]) for d in others)
            gpus = gpu_limit - sum(float(frontiers[d].gpus[at[d]]) for d in others)
            one, two = frontiers[i], frontiers[j]
            value, place = two.dearest(mw - one.mw, gpus - one.gpus)
            total = one.value + value
            best = int(total.argmax())
            now = float(one.value[at[i]] + two.value[at[j]])
            if total[best] > now + BETTER * max(1.0, abs(now)):
                at[i], at[j], moved = best, int(place[best]), True
        if not moved:
            break
    return at
