"""ARIMA by pmdarima, as Dynamo users know it: orders chosen once, then updated with each observation.

Forecasts the last value until there are five, and whenever a fit fails. A raw fit that collapses to (0, d, 0), a model
that forecasts its last value at every horizon, is tried again on ``log(1 + y)``, unless the values are logarithms
already. A value like every ``PointModel``: the fitted model behind it is shared along one line of observations and
fitted afresh where a line branches.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import pmdarima

MIN_POINTS = 5
LONGEST = 2000
"""Observations kept for a fresh fit; older ones live on in the fitted model only."""


@dataclass(slots=True)
class _Fitted:
    """A pmdarima model and how many observations it has seen. Mutable: ``update`` changes it in place."""

    model: Any
    points: int
    logged: bool


@dataclass(frozen=True, slots=True)
class Arima:
    """``history`` oldest first; ``step_s`` is the time between the last two observations."""

    history: tuple[float, ...] = ()
    points: int = 0
    seen_s: float = 0.0
    step_s: float = 0.0
    fitted: _Fitted | None = field(default=None, compare=False, repr=False)
    on_logs: bool = False
    """Whether the values are logarithms already, so that a collapsed fit stands."""

    def on_logarithms(self) -> Arima:
        """The same model for values that are logarithms already."""
        return replace(self, on_logs=True)

    @property
    def name(self) -> str:
        return "arima"

    @property
    def ready(self) -> bool:
        return self.points > 0

    def observe(self, t_s: float, y: float) -> Arima:
        fresh = replace(
            self,
            history=(*self.history[-(LONGEST - 1) :], y),
            points=self.points + 1,
            seen_s=t_s,
            step_s=t_s - self.seen_s if self.points else 0.0,
        )
        return replace(fresh, fitted=_follow(self.fitted, fresh))

    def mean(self, horizon_s: float) -> float:
        last = self.history[-1] if self.history else 0.0
        if self.fitted is None or self.fitted.points != self.points:
            return max(0.0, last)
        steps = max(1, round(horizon_s / self.step_s)) if self.step_s > 0 else 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = float(self.fitted.model.predict(n_periods=steps)[-1])
        except Exception:  # noqa: BLE001 - whatever a numeric library raises: the last value stands
            return max(0.0, last)
        value = math.expm1(min(50.0, value)) if self.fitted.logged else value
        return max(0.0, value) if math.isfinite(value) else max(0.0, last)


def _follow(before: _Fitted | None, now: Arima) -> _Fitted | None:
    """The fitted model after the newest observation: updated where it saw all the others, else fitted afresh."""
    if now.points < MIN_POINTS or len(set(now.history)) == 1:
        return None
    y = now.history[-1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if before is not None and before.points == now.points - 1:
                before.model.update([math.log1p(y) if before.logged else y])
                before.points += 1
                return before
            return _fit(now)
    except Exception:  # noqa: BLE001 - likewise
        return None


def _fit(now: Arima) -> _Fitted:
    model = pmdarima.auto_arima(list(now.history), suppress_warnings=True, error_action="ignore")
    if now.on_logs or model.order[0] or model.order[2]:
        return _Fitted(model, now.points, logged=False)
    logged = pmdarima.auto_arima(
        [math.log1p(max(0.0, y)) for y in now.history], suppress_warnings=True, error_action="ignore"
    )
    return _Fitted(logged, now.points, logged=True)


def predictor() -> Arima:
    """A fresh model."""
    return Arima()
