"""Damped Holt: a level and a trend that fades (Gardner and McKenzie 1985). Handles uneven intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

TAU_S = 60.0
TREND_TAU_S = 400.0
FADE_S = 90.0


@dataclass(frozen=True, slots=True)
class Holt:
    """``slope`` is per second and fades with ``fade_s``: its total effect is ``slope * fade_s``, however far ahead."""

    level: float | None = None
    slope: float = 0.0
    seen_s: float = 0.0
    tau_s: float = TAU_S
    trend_tau_s: float = TREND_TAU_S
    fade_s: float = FADE_S

    @property
    def name(self) -> str:
        return "holt"

    @property
    def ready(self) -> bool:
        return self.level is not None

    def observe(self, t_s: float, y: float) -> Holt:
        if self.level is None:
            return Holt(y, 0.0, t_s, self.tau_s, self.trend_tau_s, self.fade_s)
        gone_s = max(1e-9, t_s - self.seen_s)
        left = math.exp(-gone_s / self.fade_s)
        expected = self.level + self.slope * self.fade_s * (1.0 - left)
        level = expected - math.expm1(-gone_s / self.tau_s) * (y - expected)
        gain = -math.expm1(-gone_s / self.trend_tau_s)
        slope = left * self.slope + gain * ((level - self.level) / gone_s - left * self.slope)
        return Holt(level, slope, t_s, self.tau_s, self.trend_tau_s, self.fade_s)

    def mean(self, horizon_s: float) -> float:
        pull = self.slope * self.fade_s * -math.expm1(-horizon_s / self.fade_s)
        return max(0.0, (self.level or 0.0) + pull)
