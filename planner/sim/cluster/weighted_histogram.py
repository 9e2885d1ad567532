"""A histogram with weights, exported as Prometheus' cumulative histograms."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence


class WeightedHistogram:
    """``counts[i]`` is the weight of values between ``bounds[i - 1]`` and ``bounds[i]``; the last has no upper bound.

    ``squares`` is the weighted sum of squared values: the exact spread, which planners estimate from the buckets.
    """

    __slots__ = ("bounds", "counts", "squares", "sum", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0.0] * (len(bounds) + 1)
        self.sum = 0.0
        self.squares = 0.0
        self.total = 0.0

    def observe(self, value: float, weight: float = 1.0) -> None:
        """Add ``value`` with ``weight``."""
        self.counts[bisect_left(self.bounds, value)] += weight
        self.sum += value * weight
        self.squares += value * value * weight
        self.total += weight

    def within(self, value: float) -> float:
        """The weight of values up to ``value``, spread evenly within its bucket; 0 for those beyond all bounds."""
        place = bisect_left(self.bounds, value)
        below = sum(self.counts[:place])
        if place == len(self.bounds):
            return below
        low = self.bounds[place - 1] if place else 0.0
        return below + self.counts[place] * (value - low) / (self.bounds[place] - low)

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """(``le``, weight of all values up to it), ending with ``+Inf``."""
        running = 0.0
        for bound, count in zip((*map(_le, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            yield bound, running


def _le(bound: float) -> str:
    return repr(float(bound))
