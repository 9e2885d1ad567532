"""Where to measure: a search with a bounded number of runs, from the promise outwards.

First the fewest GPUs that keep the promise under all of their watts (steps that double, then halves), then the fewest
watts for that many GPUs, then the frontier around both. It only chooses what is measured: every figure is of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from planner.sim.capacity.frontier import CapacityPoint, smallest_good

WATT_STEP = 10
LEVELS = 16
"""Watt levels of a cluster size, from its lowest caps to all that it may use."""
FRONTIER_LEVELS = (15, 11, 7, 3)
"""Levels of a neighbour that are measured at once; halving from here takes two more runs."""
NEIGHBOURS = (0, -1, 1, -2, 2, 4, 8)
"""Cluster sizes around the answer, in steps, in the order in which they are measured."""

Measure = Callable[[int, Sequence[int]], Sequence[CapacityPoint]]
"""Measures one cluster size under several budgets in watts; returns one point for each, in their order."""


@dataclass(frozen=True, slots=True)
class CapacitySpace:
    """The cluster sizes that may be asked for, and the watts of each."""

    counts: Sequence[int]
    """GPUs of the clusters, rising; not empty."""
    lowest_cap_watts: float
    highest_cap_watts: float
    budget_watts: float

    def watts(self, gpus: int, level: int) -> int:
        """The budget of a cluster at a level from 0 (lowest caps) to ``LEVELS - 1`` (all that it may use)."""
        least = gpus * self.lowest_cap_watts
        most = max(least, min(self.budget_watts, gpus * self.highest_cap_watts))
        if level >= LEVELS - 1:
            return int(most)
        steps = int((most - least) * level / (LEVELS - 1)) // WATT_STEP
        return int(least) + steps * WATT_STEP


class _PointsSpentError(Exception):
    """The bound on runs is reached."""


@dataclass(slots=True)
class _Measured:
    """What has been measured, and how many runs are left."""

    space: CapacitySpace
    promise_share: float
    measure: Measure
    left: int
    points: dict[tuple[int, int], CapacityPoint] = field(default_factory=dict)

    def row(self, place: int, levels: Sequence[int]) -> None:
        """Measure levels of the cluster size at ``place``. Raises _PointsSpentError where not all could be."""
        gpus = self.space.counts[place]
        asked = dict.fromkeys(self.space.watts(gpus, level) for level in levels)
        new = [watts for watts in asked if (gpus, watts) not in self.points]
        now = new[: self.left]
        if now:
            self.left -= len(now)
            self.points.update(zip(((gpus, watts) for watts in now), self.measure(gpus, now), strict=True))
        if len(now) < len(new):
            raise _PointsSpentError

    def keeps(self, place: int, level: int = LEVELS - 1) -> bool:
        """Whether the cluster size at ``place`` keeps the promise at a level."""
        self.row(place, [level])
        gpus = self.space.counts[place]
        return self.points[gpus, self.space.watts(gpus, level)].good_share >= self.promise_share


def search(
    space: CapacitySpace, promise_share: float, most_points: int, measure: Measure, first_gpus: int
) -> tuple[CapacityPoint, ...]:
    """All measured points, at most ``most_points``; the search begins at the size nearest to ``first_gpus``."""
    measured = _Measured(space, promise_share, measure, most_points)
    first = min(range(len(space.counts)), key=lambda place: abs(space.counts[place] - first_gpus))
    try:
        fewest = _fewest_gpus(measured, first)
        if fewest is not None:
            _fewest_watts(measured, fewest)
        _around(measured)
    except _PointsSpentError:
        pass  # What was measured so far is the result: the bound is the caller's wish.
    return tuple(measured.points.values())


def _fewest_gpus(measured: _Measured, first: int) -> int | None:
    """The place of the smallest cluster that keeps the promise, the one below it measured too; None where none does."""
    last = len(measured.space.counts) - 1
    low, high, step = first, first, 1
    if measured.keeps(first):
        low = -1
        while high > 0:
            place = max(0, high - step)
            if not measured.keeps(place):
                low = place
                break
            high, step = place, 2 * step
    else:
        while True:
            if low == last:
                return None
            high = min(last, low + step)
            if measured.keeps(high):
                break
            low, step = high, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if measured.keeps(middle) else (middle, high)
    return high


def _fewest_watts(measured: _Measured, place: int) -> None:
    """Measure the lowest level at which a cluster that keeps the promise still does, and the one below it."""
    low, high = -1, LEVELS - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if measured.keeps(place, middle) else (middle, high)


def _around(measured: _Measured) -> None:
    points = measured.points.values()
    centre = smallest_good(points, measured.promise_share) or max(points, key=lambda point: point.good_share)
    place = measured.space.counts.index(centre.gpus)
    for offset in NEIGHBOURS:
        if 0 <= place + offset < len(measured.space.counts):
            measured.row(place + offset, FRONTIER_LEVELS)
            if measured.keeps(place + offset):
                _fewest_watts(measured, place + offset)
