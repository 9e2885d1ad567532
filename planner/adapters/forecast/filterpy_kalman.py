"""The Kalman predictor computed by filterpy: the same filter as ``core/forecast/kalman.py``, by the library.

Its state is plain numbers like the core's, so that records of one are read back by the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from filterpy.kalman import predict, update

from planner.core.forecast.kalman import Kalman

TRANSITION = np.array([[1.0, 1.0], [0.0, 1.0]])
MEASUREMENT = np.array([[1.0, 0.0]])


@dataclass(frozen=True, slots=True)
class FilterpyKalman(Kalman):
    """A local linear trend, as in the core. Parameters and times as there."""

    kind: ClassVar[str] = Kalman.__name__
    """The name in plan records."""

    def _updated(self, y: float) -> FilterpyKalman:
        level_var, covariance, trend_var = self.p
        x, p = predict(
            np.array([[self.level], [self.trend]]),
            np.array([[level_var, covariance], [covariance, trend_var]]),
            F=TRANSITION,
            Q=np.diag([self.q_level, self.q_trend]),
        )
        x, p = update(x, p, z=np.array([[y]]), R=np.array([[self.r]]), H=MEASUREMENT)
        return replace(
            self,
            level=float(x[0, 0]),
            trend=float(x[1, 0]),
            p=(float(p[0, 0]), float(p[0, 1]), float(p[1, 1])),
        )
