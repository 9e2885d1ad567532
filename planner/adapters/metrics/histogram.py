"""What a Prometheus histogram shows about one interval: mean, quantiles, spread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

Bucket = tuple[float, float]


@dataclass(frozen=True, slots=True)
class IntervalHistogram:
    """Increase of a histogram over an interval.

    ``buckets``: (upper bound, cumulative count), bounds rising, the last one ``inf``. Empty when only sum and
    count are known.
    """

    count: float
    total: float
    buckets: tuple[Bucket, ...] = ()

    @property
    def mean(self) -> float | None:
        """Exact mean of the observations; None without any."""
        return self.total / self.count if self.count > 0 else None

    def quantile(self, share: float) -> float | None:
        """The ``share`` quantile, linear within its bucket as ``histogram_quantile`` does; None without any.

        In the open last bucket the answer is its lower bound: the histogram holds no more.
        """
        if not self.buckets or self.count <= 0:
            return None
        rank = share * self.buckets[-1][1]
        below, lower = 0.0, 0.0
        for bound, cumulative in self.buckets:
            if cumulative >= rank and cumulative > below:
                if math.isinf(bound):
                    return lower
                return lower + (bound - lower) * max(0.0, rank - below) / (cumulative - below)
            below, lower = cumulative, bound
        return lower

    def share_within(self, bound: float) -> float | None:
        """The share of observations up to ``bound``, linear within its bucket; None without any.

        Nothing in the open last bucket counts: of those observations only the lower bound is known.
        """
        if not self.buckets or self.count <= 0 or self.buckets[-1][1] <= 0:
            return None
        below, lower, total = 0.0, 0.0, self.buckets[-1][1]
        for upper, cumulative in self.buckets:
            if bound < upper:
                part = 0.0 if math.isinf(upper) else max(0.0, bound - lower) / (upper - lower)
                return min(1.0, (below + part * (cumulative - below)) / total)
            below, lower = cumulative, upper
        return 1.0

    def cv2(self) -> float | None:
        """Squared coefficient of variation, taking each bucket as uniform; None without observations or buckets.

        Formula: E[x^2] of a uniform piece (a, b) is mid^2 + (b - a)^2 / 12. The mass of the open bucket sits at the
        mean that the exact total leaves for it, never below its lower bound. Wide buckets overstate the spread.
        """
        if len(self.buckets) < 2 or self.count <= 0 or self.total <= 0:
            return None
        first, second, below, lower = 0.0, 0.0, 0.0, 0.0
        for bound, cumulative in self.buckets:
            mass = cumulative - below
            if math.isinf(bound):
                tail = max(lower, (self.total - first) / mass) if mass > 0 else 0.0
                first, second = first + mass * tail, second + mass * tail**2
            else:
                middle = (lower + bound) / 2
                first += mass * middle
                second += mass * (middle**2 + (bound - lower) ** 2 / 12)
                below, lower = cumulative, bound
        mass = self.buckets[-1][1]
        mean = first / mass if mass > 0 else 0.0
        return max(0.0, second / mass / mean**2 - 1.0) if mean > 0 else None

    def scaled(self, factor: float) -> IntervalHistogram:
        """The same observations in another unit."""
        return IntervalHistogram(
            self.count, self.total * factor, tuple((bound * factor, n) for bound, n in self.buckets)
        )

    def plus(self, other: IntervalHistogram) -> IntervalHistogram:
        """Both histograms together. Where bounds differ, buckets are dropped: a guess would look like a measurement."""
        same = [bound for bound, _ in self.buckets] == [bound for bound, _ in other.buckets]
        buckets = tuple((b, n + m) for (b, n), (_, m) in zip(self.buckets, other.buckets, strict=True)) if same else ()
        return IntervalHistogram(self.count + other.count, self.total + other.total, buckets)


def histogram(count: float, total: float, cumulative: Mapping[float, float]) -> IntervalHistogram:
    """A Histogram from bucket counts by upper bound; counts are made to rise, as increments of scrapes may not."""
    buckets: list[Bucket] = []
    highest = 0.0
    for bound in sorted(cumulative):
        highest = max(highest, cumulative[bound])
        buckets.append((bound, highest))
    if buckets and not math.isinf(buckets[-1][0]):
        buckets.append((math.inf, max(highest, count)))
    return IntervalHistogram(count, total, tuple(buckets))
