"""Exponentially weighted mean over time, with one time constant; the default, ``blend``, combines several of these."""

from __future__ import annotations

import math
from dataclasses import dataclass

TAU_S = 60.0


@dataclass(frozen=True, slots=True)
class Ewma:
    """Weights an observation with ``1 - exp(-dt / tau_s)``, so that uneven intervals count by their length."""

    tau_s: float = TAU_S
    level: float | None = None
    seen_s: float = 0.0

    @property
    def name(self) -> str:
        return "ewma"

    @property
    def ready(self) -> bool:
        return self.level is not None

    def observe(self, t_s: float, y: float) -> Ewma:
        if self.level is None:
            return Ewma(self.tau_s, y, t_s)
        gain = -math.expm1(-max(0.0, t_s - self.seen_s) / self.tau_s)
        return Ewma(self.tau_s, self.level + gain * (y - self.level), t_s)

    def mean(self, horizon_s: float) -> float:
        return max(0.0, self.level or 0.0)
