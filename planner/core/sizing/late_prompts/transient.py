"""How late prompts will be until capacity can change again: a queue that starts with a backlog and may be overloaded.

Each replica's unfinished work is a reflected Brownian motion with drift ``rho - 1`` (Harrison, "Brownian Motion and
Stochastic Flow Systems", 1985, section 1.8): from work ``b`` at time 0,

    P(work at t > w) = Q((w - b - d t) / s) + exp(2 d w / v) Q((w + b + d t) / s),   d = rho - 1, s = sqrt(v t)

with ``Q`` the normal upper tail and variance rate ``v = rho * S * (cs2 + ca2 / n)``: prompts are dealt out in turn to
``n`` replicas, which smooths arrivals but not lengths. Unlike a steady-state queue it has a solution above ``rho = 1``
and includes the present backlog. The share of late prompts is the mean over the forecast's own error distribution, so
that one quantile covers both the queue and the forecast. Plain floats: one deployment has too few cases for arrays to
pay; ``lateness`` answers for many at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, exp, sqrt

import numpy as np

from planner.core.sizing.queueing import CountArray

STEPS = 5
CLOSE = 0.02
MOST = 1_000_000
LEAST = 1e-6
SURE = 1e-9
ROOT2 = math.sqrt(2.0)
FAR = 25.0
STEEP = 0.5 * FAR * FAR
ROOT2PI = math.sqrt(2.0 * math.pi)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What may come. Milliseconds at full speed; ``rates`` are equally likely, in requests a second.

    ``backlog_ms``: engine time that waiting prompts need; ``serving``: replicas that work it off until new ones serve,
    ``lead_ms`` from now; ``span_ms``: the time after that at which lateness is evaluated.
    """

    rates: Sequence[float]
    own_ms: float
    cost_ms: float
    cs2: float
    ca2: float
    backlog_ms: float
    serving: float
    lead_ms: float
    span_ms: float

    def late_share(self, capacity: float, speed: float, target_ms: float) -> float:
        """Expected share of prompts whose first token comes after ``target_ms``; ``capacity``: replicas x speed."""
        wait = target_ms - self.own_ms / speed
        if wait <= 0.0:
            return 1.0
        spread = self.cost_ms / speed * (self.cs2 + self.ca2 / max(1.0, capacity / speed))
        total, cost, span_ms, backlog_ms = 0.0, self.cost_ms / 1000.0, self.span_ms, self.backlog_ms
        serving, lead_ms, half_wait = self.serving, self.lead_ms, wait / 2.0
        for rate in self.rates:
            asked = rate * cost
            rho = asked / capacity
            if rho < LEAST:
                rho = LEAST
            left = backlog_ms + (asked - serving) * lead_ms
            backlog = left / capacity if left > 0.0 else 0.0
            total += beyond(wait / (1.0 + rho) if rho < 1.0 else half_wait, backlog, rho - 1.0, rho * spread, span_ms)
        return total / len(self.rates)

    def line(self, target_ms: float, share: float) -> CapacityLine:
        """The speed at which no more than ``share`` is later than ``target_ms``, by count."""
        asked = Prompts(self, target_ms, share)
        at_full = self._between_counts(self.capacity(1.0, target_ms, share), target_ms, share)
        return capacity_line(asked, at_full, self.capacity(math.sqrt(self.own_ms / target_ms), target_ms, share))

    def required_speed(self, counts: CountArray, target_ms: float, share: float) -> CountArray:
        """The speed at which no more than ``share`` is late; inf for no replicas."""
        return self.line(target_ms, share).speeds(counts)

    def capacity(self, speed: float, target_ms: float, share: float) -> float:
        """The least capacity at ``speed``, to a few percent. The logarithm of lateness is nearly linear in capacity."""
        asked = max(self.rates) * self.cost_ms / 1000.0
        wanted = math.log(share)
        low = max(LEAST, 0.25 * asked)
        at_low = self._excess(low, speed, target_ms, wanted)
        if at_low <= 0.0:
            return low
        high = 1.5 * asked + 1.0
        while (at_high := self._excess(high, speed, target_ms, wanted)) > 0.0 and high < MOST:
            low, at_low, high = high, at_high, 2.0 * high
        for step in range(STEPS):
            if high - low < CLOSE * high:
                break
            part = at_low / (at_low - at_high) if step % 2 == 0 else 0.5
            middle = low + min(0.95, max(0.05, part)) * (high - low)
            excess = self._excess(middle, speed, target_ms, wanted)
            if excess > 0.0:
                low, at_low = middle, excess
            else:
                high, at_high = middle, excess
        return high

    def _between_counts(self, capacity: float, target_ms: float, share: float) -> float:
        """``capacity``, moved to the correct side of a whole count where its error matters: counts are exact."""
        count = max(1, math.ceil(capacity))
        while self.late_share(float(count), 1.0, target_ms) > share and count < MOST:
            count += 1
        while count > 1 and self.late_share(float(count - 1), 1.0, target_ms) <= share:
            count -= 1
        return min(float(count), max(capacity, count - 1.0 + LEAST))

    def _excess(self, capacity: float, speed: float, target_ms: float, wanted: float) -> float:
        return math.log(self.late_share(capacity, speed, target_ms) + SURE) - wanted


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is asked of an outlook: that no more than ``share`` of the prompts are later than ``target_ms``."""

    outlook: Outlook
    target_ms: float
    share: float


@dataclass(frozen=True, slots=True)
class CapacityLine:
    """The capacity that is needed, ``a + b / speed``; at full speed exactly ``at_full``; slower than ``slowest``, none.

    Slower engines need more capacity, because a prompt's own service time leaves less time to wait. It is taken through
    two speeds, so that ``count * speed = a + b / speed`` has a closed form. Where more than full speed is required, no
    gain from it is assumed.
    """

    at_full: float
    b: float
    slowest: float

    def speeds(self, counts: CountArray) -> CountArray:
        """The speed that each count needs; inf for no replicas."""
        at_full, b, a = self.at_full, self.b, self.at_full - self.b
        counts = np.maximum(counts, 1e-9)
        speed = (a + np.sqrt(a * a + 4.0 * counts * b)) / (2.0 * counts)
        speed = np.where(counts < at_full, at_full / counts, np.maximum(speed, self.slowest))
        return np.where(counts >= 0.5, speed, np.inf)


def capacity_line(asked: Prompts, at_full: float, at_slower: float) -> CapacityLine:
    """The line through the capacities at full speed and at the square root of the slowest speed."""
    slowest = asked.outlook.own_ms / asked.target_ms
    b = max(0.0, (at_slower - at_full) / (1.0 / math.sqrt(slowest) - 1.0))
    return CapacityLine(at_full, b, slowest)


def beyond(level: float, start: float, drift: float, variance: float, span: float) -> float:
    """``P(work > level)`` after ``span`` of reflected Brownian motion from ``start``."""
    width, moved, pull = sqrt(variance * span), drift * span, 2.0 * drift * level
    free = 0.5 * erfc((level - start - moved) / (width * ROOT2))
    if free >= 1.0 or (free < SURE and drift < 0.0 and pull < -FAR * variance):
        return free
    exponent, z = pull / variance, (level + start + moved) / width
    if z > FAR or exponent > STEEP:
        reflected = exp(min(0.0, exponent - 0.5 * z * z)) / (max(1.0, z) * ROOT2PI)
    else:
        reflected = exp(exponent) * 0.5 * erfc(z / ROOT2)
    return min(1.0, free + reflected)
