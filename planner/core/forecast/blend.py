"""Exponentially weighted means with several time constants, each weighted by its recent accuracy.

No single time constant suits all loads: a short one follows a drifting rate, a long one averages a noisy one. Which one
fits is not known in advance, and it changes. So each is weighted by its recent squared errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

from planner.core.forecast.ewma import Ewma

MEMORIES_S = (4.0, 12.0, 36.0, 108.0)
FORGETTING = 0.05
"""Weight of the newest error in each mean's loss."""
SHARPNESS = 4.0
"""A mean with twice the loss of the best has ``2 ** -SHARPNESS`` of its weight."""
_SURE = 1e-12


@dataclass(frozen=True, slots=True)
class Blend:
    """``losses``: discounted squared errors one observation ahead, in the order of ``means``."""

    means: tuple[Ewma, ...] = tuple(Ewma(tau_s) for tau_s in MEMORIES_S)
    losses: tuple[float, ...] = (0.0,) * len(MEMORIES_S)

    @property
    def name(self) -> str:
        return "blend"

    @property
    def ready(self) -> bool:
        return self.means[0].ready

    def observe(self, t_s: float, y: float) -> Blend:
        losses: Sequence[float] = self.losses
        if self.ready:
            errors = [mean.mean(0.0) - y for mean in self.means]
            pairs = zip(self.losses, errors, strict=True)
            losses = [loss + FORGETTING * (error * error - loss) for loss, error in pairs]
        return Blend(tuple([mean.observe(t_s, y) for mean in self.means]), tuple(losses))

    def mean(self, horizon_s: float) -> float:
        best = min(self.losses) + _SURE
        weights = [float((best / (loss + _SURE)) ** SHARPNESS) for loss in self.losses]
        levels = [mean.mean(horizon_s) for mean in self.means]
        total: float = sum(map(mul, weights, levels)) / sum(weights)
        return max(0.0, total)
