"""Pools as padded tables: by count, the speeds that are needed and how busy a replica is, of all pools in one pass.

Owns the layout (one row a pool, one column a count) and which counts are of use. Must never choose among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from planner.core.allocation.optimiser.shares import ANSWERS_MARGIN
from planner.domain.demand import PoolDemand
from planner.domain.pool import Role

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Tables:
    """(P, N), padded to the pool of the most useful counts."""

    counts: Floats
    """inf where a pool has no such count."""
    need: Floats
    """Speed that the whole load needs, as it is sized; inf where there is no such count."""
    prompts: Floats
    """Speed that arriving prompts need; 0 where the pool serves none."""
    answers: Floats
    """The same of answers."""
    busy: Floats
    """Expected busy share of a replica at full speed."""


def padded(pools: Sequence[PoolDemand], slowest: Floats, spare: Floats, *, from_zero: bool) -> Tables:
    """The tables of ``pools``. ``slowest`` and ``spare`` (P): speed at the lowest useful cap, and the factor to spare.

    ``from_zero``: with counts below ``min_replicas`` too; they need a speed that rises as 1 / count.
    """
    cells = _Cells(pools, from_zero=from_zero)
    need = cells.speeds([pool.required_speed for pool in pools], np.inf)
    useful = _useful(cells, need, slowest, spare)
    wide = int(useful.max())
    columns, need = cells.columns[:wide], need[:, :wide]
    there = columns < useful[:, None]
    need[need <= TINY] = 0.0
    prompts, answers = _felt(cells, need, there)
    return Tables(
        counts=np.where(there, cells.first[:, None] + columns, np.inf),
        need=np.where(there, need, np.inf),
        prompts=prompts,
        answers=answers,
        busy=np.where(there, cells.utilisation()[:, :wide], 0.0),
    )


class _Cells:
    """Where each value of the pools' tuples lies in a padded table, and what stands below the first of them."""

    def __init__(self, pools: Sequence[PoolDemand], *, from_zero: bool) -> None:
        self.pools = pools
        sizes = [(pool.min_replicas, pool.current_replicas, len(pool.required_speed)) for pool in pools]
        least, self.running, length = np.array(sizes, dtype=np.int64).T
        self.below = least if from_zero else 0 * least
        self.first = least - self.below
        self.width = self.below + length
        self.columns = np.arange(int(self.width.max()))
        self._there = self.columns < self.width[:, None]
        self._is_below = None
        if from_zero:
            self._is_below = self.columns < self.below[:, None]
            self._there &= ~self._is_below
            self._starts = length.cumsum() - length

    def speeds(self, by_count: Sequence[Sequence[float]], fill: float) -> Floats:
        """(P, widest) speeds by count; below the first count by the 1 / count law, and inf for no replicas."""
        flat, table = self._spread(by_count, fill)
        if self._is_below is None:
            return table
        with np.errstate(divide="ignore", invalid="ignore"):
            rising = (flat[self._starts] * self.below)[:, None] / self.columns
        rising[:, 0] = np.inf
        return np.where(self._is_below, rising, table)

    def utilisation(self) -> Floats:
        """(P, widest) busy shares: 1 below the first count, 0 for no replicas."""
        _, table = self._spread([pool.utilisation for pool in self.pools], 0.0)
        return table if self._is_below is None else np.where(self._is_below, self.columns > 0, table)

    def _spread(self, by_count: Sequence[Sequence[float]], fill: float) -> tuple[Floats, Floats]:
        flat = np.array(list(chain.from_iterable(by_count)), dtype=np.float64)
        table = np.empty(self._there.shape)
        table.fill(fill)
        table[self._there] = flat
        return flat, table


def _useful(cells: _Cells, need: Floats, slowest: Floats, spare: Floats) -> Ints:
    """(P) counts to examine: to the first with speed to spare at the lowest useful cap, or to those that run."""
    enough = np.where(slowest > 0.0, slowest / spare + TINY, -1.0)
    plenty = (need <= enough[:, None]) & (cells.columns >= (cells.running - cells.first)[:, None])
    found: Ints = np.where(plenty.any(axis=1), plenty.argmax(axis=1) + 1, cells.width)
    return found


def _felt(cells: _Cells, need: Floats, there: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """(P, N) the speeds from which shares are predicted: of prompts and of answers; 0 for a phase not served."""
    pools, wide = cells.pools, need.shape[1]
    serves = np.array([(pool.role is not Role.DECODE, pool.role is not Role.PREFILL) for pool in pools])
    prompts = answers = need
    if any(pool.prompt_speed for pool in pools):
        prompts = cells.speeds([pool.prompt_speed or pool.required_speed for pool in pools], 0.0)[:, :wide]
        prompts[prompts <= TINY] = 0.0
    if any(pool.arriving_speed for pool in pools):
        answers = cells.speeds([pool.arriving_speed or pool.required_speed for pool in pools], 0.0)[:, :wide]
        answers = answers * np.array([[ANSWERS_MARGIN if pool.arriving_speed else 1.0] for pool in pools])
        answers[answers <= TINY] = 0.0
    return np.where(there & serves[:, :1], prompts, 0.0), np.where(there & serves[:, 1:], answers, 0.0)
