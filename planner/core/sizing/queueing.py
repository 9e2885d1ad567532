"""Waiting in front of engines: M/G/c in the Allen-Cunneen form, with a quantile instead of a mean.

``P(wait > t) = C * exp(-t * n * (1 - rho) / (S * (ca2 + cs2) / 2))`` with ``C = rho ** (sqrt(2 (n + 1)) - 1)``,
Sakasegawa's closed form of Erlang's C (Sakasegawa 1977; Allen, "Probability, Statistics and Queueing Theory", 1990).
All functions take and return arrays over replica counts, so that a whole table of options takes one pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CountArray = NDArray[np.float64]

FULLEST = 0.95
"""Highest utilisation planned for: above it the wait of a finite queue is mostly random."""
_NEWTON_STEPS = 30
_FARTHEST_STEP = 0.1


@dataclass(frozen=True, slots=True)
class Station:
    """Replicas that serve one queue. Milliseconds at full speed.

    ``own_ms``: service time of one request; ``cost_ms``: engine time that it uses up; ``dispersion``: (ca2 + cs2) / 2.
    """

    req_per_s: float
    own_ms: float
    cost_ms: float
    dispersion: float
    quantile: float

    def utilisation(self, counts: CountArray) -> CountArray:
        """Busy share of a replica at full speed; may exceed 1."""
        return self.req_per_s * self.cost_ms / 1000.0 / np.maximum(counts, 1e-9)

    def response_ms(self, counts: CountArray, speed: CountArray) -> CountArray:
        """The quantile of wait plus service at relative speed ``speed``; inf where the queue grows without limit."""
        rho = self.utilisation(counts) / speed
        idle = 1.0 - np.minimum(rho, 1.0 - 1e-9)
        chance = np.exp((np.sqrt(2.0 * (counts + 1.0)) - 1.0) * np.log(np.maximum(rho, 1e-12)))
        surprise = np.log(np.maximum(1.0, chance / (1.0 - self.quantile)))
        wait = self.cost_ms * self.dispersion * surprise / (np.maximum(counts, 1e-9) * idle)
        return np.where(rho >= 1.0, np.inf, (self.own_ms + wait) / speed)

    def response_at(self, count: int, speed: float) -> float | None:
        """``response_ms`` for one count; None where the queue would grow without limit."""
        value = float(self.response_ms(np.array([float(count)]), np.array([speed]))[0])
        return value if np.isfinite(value) else None

    def required_speed(self, counts: CountArray, target_ms: float) -> CountArray:
        """The least speed at which each count keeps ``response_ms`` within ``target_ms``; ``inf`` for count 0."""
        return np.array([self._speed_for(count, target_ms) for count in counts.tolist()])

    def _speed_for(self, count: float, target_ms: float) -> float:
        """Newton's method on the utilisation, downwards from the highest one allowed. The response is convex in it, so
        that a step down never overshoots.
        """
        if count <= 0:
            return math.inf
        full = self.req_per_s * self.cost_ms / 1000.0 / count
        if full <= 0:
            return self.own_ms / target_ms
        power = math.sqrt(2.0 * (count + 1.0)) - 1.0
        scale, rare = self.cost_ms * self.dispersion / count, -math.log(1.0 - self.quantile)
        rho = min(FULLEST, full * target_ms / self.own_ms)
        for _ in range(_NEWTON_STEPS):
            surprise = power * math.log(rho) + rare
            if surprise <= 0:
                excess, slope = self.own_ms * rho - target_ms * full, self.own_ms
            else:
                idle = 1.0 - rho
                response = self.own_ms + scale * surprise / idle
                excess = response * rho - target_ms * full
                slope = response + scale * (power + rho * surprise / idle) / idle
            if excess <= 1e-9 * target_ms * full:
                break
            rho = max(rho * _FARTHEST_STEP, rho - excess / slope)
        return full / rho
