"""The last value, at every horizon: the baseline that other models must beat."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Constant:
    """Forecasts the last observed value."""

    last: float | None = None

    @property
    def name(self) -> str:
        return "constant"

    @property
    def ready(self) -> bool:
        return self.last is not None

    def observe(self, t_s: float, y: float) -> Constant:
        return Constant(y)

    def mean(self, horizon_s: float) -> float:
        return max(0.0, self.last or 0.0)
