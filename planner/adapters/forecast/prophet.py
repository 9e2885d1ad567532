"""Prophet, as Dynamo users know it: refitted on the last 50 points whenever a forecast is asked for.

Slow (a fit takes tenths of a second): for long intervals with a daily shape, not for thirty seconds.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pandas
from prophet import Prophet

WINDOW = 50
FIRST_FIT = 5
EPOCH = datetime(2024, 1, 1)  # Prophet wants naive times; only differences matter

logging.getLogger("cmdstanpy").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class ProphetModel:
    """A value: ``observe`` returns the next one. ``points`` are (seconds of load time, value)."""

    points: tuple[tuple[float, float], ...] = ()

    @property
    def name(self) -> str:
        return "prophet"

    @property
    def ready(self) -> bool:
        return bool(self.points)

    def observe(self, t_s: float, y: float) -> ProphetModel:
        """The model after one more point."""
        return replace(self, points=(*self.points, (t_s, max(0.0, y)))[-WINDOW:])

    def mean(self, horizon_s: float) -> float:
        """The expected value so many seconds ahead, never below 0; the last one where a fit fails."""
        if not self.points:
            return 0.0
        last_s, last = self.points[-1]
        if len(self.points) < FIRST_FIT or len({y for _, y in self.points}) == 1:
            return last
        try:
            value = self._fitted(last_s + horizon_s)
        except Exception:  # noqa: BLE001  # the library raises whatever its solver raises
            return last
        return max(0.0, value) if math.isfinite(value) else last

    def _fitted(self, at_s: float) -> float:
        frame = pandas.DataFrame(
            {"ds": [EPOCH + timedelta(seconds=t) for t, _ in self.points], "y": [y for _, y in self.points]}
        )
        model = Prophet()
        model.fit(frame)
        ahead = pandas.DataFrame({"ds": [EPOCH + timedelta(seconds=at_s)]})
        return float(model.predict(ahead)["yhat"].iloc[0])


def predictor() -> ProphetModel:
    """A fresh model."""
    return ProphetModel()
