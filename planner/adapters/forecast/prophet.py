"""Prophet, as Dynamo users know it: fitted afresh to the last observations (50) at each forecast.

Forecasts the last value until there are five, and whenever a fit fails. A fit takes tenths of a second: for long
intervals.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pandas
from prophet import Prophet as Library

WINDOW = 50
MIN_POINTS = 5
DAY_ONE = datetime(2024, 1, 1)


@dataclass(frozen=True, slots=True)
class Prophet:
    """``history``: (seconds, value), oldest first. Forecasts already made are kept beside it."""

    history: tuple[tuple[float, float], ...] = ()
    window: int = WINDOW
    """Observations that a fit uses: the newest."""
    made: dict[float, float] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        return "prophet"

    @property
    def ready(self) -> bool:
        return bool(self.history)

    def observe(self, t_s: float, y: float) -> Prophet:
        return Prophet((*self.history, (t_s, y))[-self.window :], self.window)

    def mean(self, horizon_s: float) -> float:
        if horizon_s not in self.made:
            self.made[horizon_s] = self._forecast(horizon_s)
        return self.made[horizon_s]

    def _forecast(self, horizon_s: float) -> float:
        last = max(0.0, self.history[-1][1]) if self.history else 0.0
        if len(self.history) < MIN_POINTS:
            return last
        try:
            value = _fit(self.history, horizon_s)
        except Exception:  # noqa: BLE001 - whatever a numeric library raises: the last value stands
            return last
        return max(0.0, value) if math.isfinite(value) else last


def _fit(history: tuple[tuple[float, float], ...], horizon_s: float) -> float:
    start_s = history[0][0]
    times = [DAY_ONE + timedelta(seconds=at - start_s) for at, _ in history]
    model = Library()
    logging.getLogger("cmdstanpy").setLevel(logging.WARNING)  # it sets its own level with the first model
    model.fit(pandas.DataFrame({"ds": times, "y": [y for _, y in history]}))
    ahead = pandas.DataFrame({"ds": [times[-1] + timedelta(seconds=horizon_s)]})
    return float(model.predict(ahead)["yhat"].iloc[-1])


def predictor() -> Prophet:
    """A fresh model."""
    return Prophet()
