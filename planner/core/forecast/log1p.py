"""Any model on ``log(1 + y)``: for loads that grow by factors. It forecasts a median, not a mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.domain.predictor import PointModel

LARGEST = 50.0
"""Largest logarithm to invert: beyond it a forecast is an overflow, not a load."""


@dataclass(frozen=True, slots=True)
class Log1p:
    """Transforms observations for the model, and its forecasts back."""

    model: PointModel

    @property
    def name(self) -> str:
        return f"{self.model.name}+log1p"

    @property
    def ready(self) -> bool:
        return self.model.ready

    def observe(self, t_s: float, y: float) -> Log1p:
        return Log1p(self.model.observe(t_s, math.log1p(max(0.0, y))))

    def mean(self, horizon_s: float) -> float:
        return max(0.0, math.expm1(min(LARGEST, self.model.mean(horizon_s))))
