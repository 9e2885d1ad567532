"""How often a point is measured: until its confidence interval is narrow, or until it has been tried enough. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Student's t, two-sided 95 %, by degrees of freedom from 1."""
T_95_BEYOND = 2.13
MAD_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""
MEDIAN_TO_MEAN = 1.2533
"""Standard error of a median in that of a mean: sqrt(pi / 2)."""


@dataclass(frozen=True, slots=True)
class RepeatRule:
    """``least`` and ``most`` repeats of a point, and the half width of the interval that is narrow, as a share."""

    least: int
    most: int
    narrow: float


FULL_REPEATS = RepeatRule(least=3, most=10, narrow=0.02)
QUICK_REPEATS = RepeatRule(least=2, most=8, narrow=0.05)


@dataclass(frozen=True, slots=True)
class RepeatEstimate:
    """The median of a point's repeats and the half width of its 95 % interval as a share of it.

    ``half_width`` is None for one repeat.
    """

    value: float
    half_width: float | None
    repeats: int

    def is_narrow(self, rule: RepeatRule) -> bool:
        """Whether the interval is as narrow as the rule wants."""
        return self.half_width is not None and self.half_width <= rule.narrow


def t_95(degrees: int) -> float:
    """Student's t, two-sided 95 %, for 1 degree of freedom and more; from 16 on that of 16, which is a little wide."""
    return T_95[degrees - 1] if degrees <= len(T_95) else T_95_BEYOND


def estimate(values: Sequence[float]) -> RepeatEstimate:
    """The estimate from a point's repeats. Raises ValueError without one.

    Median and median absolute deviation, because what disturbs a measurement only makes it longer, and rarely.
    """
    if not values:
        raise ValueError("no repeats")
    middle = statistics.median(values)
    count = len(values)
    if count == 1 or middle <= 0:
        return RepeatEstimate(middle, None, count)
    if count == 2:
        sigma = statistics.stdev(values)
    else:
        sigma = MAD_TO_SIGMA * MEDIAN_TO_MEAN * statistics.median(abs(value - middle) for value in values)
    return RepeatEstimate(middle, t_95(count - 1) * sigma / math.sqrt(count) / middle, count)


def is_done(values: Sequence[float], rule: RepeatRule) -> bool:
    """Whether a point needs no further repeat."""
    if len(values) < rule.least:
        return False
    return len(values) >= rule.most or estimate(values).is_narrow(rule)
