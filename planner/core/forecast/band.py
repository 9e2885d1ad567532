"""A band around any point model: adaptive conformal quantiles of its own past errors.

Every point forecast of a request rate is short in a quarter to a half of all intervals, so capacity is sized on an
upper quantile. The quantile is of the RELATIVE errors seen so far at the horizon that sizing uses; its level adapts to
the coverage reached (Gibbs and Candès, "Adaptive conformal inference under distribution shift", 2021), so a load that
changes its habits widens the band by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.domain.plan import Forecast
from planner.domain.predictor import PointModel

WINDOW = 64
ADAPTATION = 0.02
LARGEST_ERROR = 1.0
FLOOR = 1e-9


@dataclass(frozen=True, slots=True)
class Band:
    """A point model with its errors. ``errors`` are relative and sorted by age; ``due`` are forecasts to be judged."""

    model: PointModel
    level: float = 0.9
    horizon_s: float = 60.0
    errors: tuple[float, ...] = ()
    miss_share: float = 0.1
    due: tuple[tuple[float, float], ...] = ()

    @property
    def ready(self) -> bool:
        return self.model.ready

    def observe(self, t_s: float, y: float) -> Band:
        """The band after seeing ``y`` at ``t_s``: forecasts that fell due are judged, then the model learns."""
        judged = self._judge(t_s, y)
        model = self.model.observe(t_s, y)
        due = (*judged.due, (t_s + self.horizon_s, model.mean(self.horizon_s)))
        return replace(judged, model=model, due=due)

    def forecast(self, horizon_s: float) -> Forecast:
        """Mean with lower and upper quantile, ``horizon_s`` after the last observation."""
        mean = self.model.mean(horizon_s)
        ordered = sorted(self.errors)
        return Forecast(
            mean=mean,
            upper=mean * (1.0 + max(0.0, _quantile(ordered, 1.0 - self.miss_share))),
            lower=mean * (1.0 + min(0.0, _quantile(ordered, self.miss_share))),
            horizon_s=horizon_s,
            model=self.model.name,
        )

    def _judge(self, t_s: float, y: float) -> Band:
        """One error a sample: that of the newest forecast due by now; older ones were for instants never sampled."""
        fallen = [mean for due_s, mean in self.due if due_s <= t_s + FLOOR]
        if not fallen:
            return self
        error = min(LARGEST_ERROR, (y - fallen[-1]) / max(fallen[-1], FLOOR)) if (y or fallen[-1]) else 0.0
        missed = error > max(0.0, _quantile(sorted(self.errors), 1.0 - self.miss_share)) + FLOOR
        wanted = 1.0 - self.level
        share = self.miss_share + ADAPTATION * (wanted - (1.0 if missed else 0.0))
        return replace(
            self,
            errors=(*self.errors[-(WINDOW - 1) :], error),
            miss_share=min(0.5, max(wanted / 5.0, share)),
            due=tuple(entry for entry in self.due if entry[0] > t_s + FLOOR),
        )


def _quantile(ordered: list[float], share: float) -> float:
    """The conformal quantile: the ``ceil((n + 1) * share)``-th smallest, the largest where there are too few."""
    if not ordered:
        return 0.0
    rank = -int(-(len(ordered) + 1) * share // 1)
    return ordered[min(len(ordered), max(1, rank)) - 1]
