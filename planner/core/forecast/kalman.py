"""Kalman filter with a local linear trend, with the parameters of Dynamo's planner.

``x = [level, trend]``, ``F = [[1, 1], [0, 1]]``, ``H = [1, 0]``, ``P0 = 1000 I``, ``Q = diag(q_level, q_trend)``. The
filter is written out for its two states: the results are filterpy's (a test compares them), at a fraction of the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

P0 = 1000.0


@dataclass(frozen=True, slots=True)
class Kalman:
    """One step is one observation; ``step_s`` is the time between the last two, for horizons in seconds."""

    q_level: float = 1.0
    q_trend: float = 0.1
    r: float = 10.0
    min_points: int = 5
    signed: bool = False
    """Whether a forecast may be below 0, as in the published 0.9 planner."""
    points: int = 0
    last: float = 0.0
    level: float = 0.0
    trend: float = 0.0
    p: tuple[float, float, float] = (P0, 0.0, P0)
    """Covariance: level, level with trend, trend."""
    seen_s: float = 0.0
    step_s: float = 0.0

    @property
    def name(self) -> str:
        return "kalman"

    @property
    def ready(self) -> bool:
        return self.points > 0

    def as_published(self) -> Kalman:
        """0.9.1 takes ``kalman-min-points`` and forecasts from the first point on all the same."""
        return replace(self, min_points=1, signed=True)

    def observe(self, t_s: float, y: float) -> Kalman:
        moved = replace(self, level=y) if self.points == 0 else self._updated(y)
        return replace(
            moved,
            points=self.points + 1,
            last=y,
            seen_s=t_s,
            step_s=t_s - self.seen_s if self.points else 0.0,
        )

    def _updated(self, y: float) -> Kalman:
        a, b, c = self.p
        level, trend = self.level + self.trend, self.trend
        a, b, c = a + 2.0 * b + c + self.q_level, b + c, c + self.q_trend
        innovation, spread = y - level, a + self.r
        gain_level, gain_trend = a / spread, b / spread
        p = ((1.0 - gain_level) * a, (1.0 - gain_level) * b, c - gain_trend * b)
        return replace(self, level=level + gain_level * innovation, trend=trend + gain_trend * innovation, p=p)

    def mean(self, horizon_s: float) -> float:
        if self.points < self.min_points:
            return max(0.0, self.last)
        steps = max(1.0, round(horizon_s / self.step_s)) if self.step_s > 0 else 1.0
        value = self.level + steps * self.trend
        return value if self.signed else max(0.0, value)
