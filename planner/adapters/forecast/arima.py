"""ARIMA, as Dynamo users know it: the order is searched once, then the model is only updated.

When the search collapses to (0, d, 0), a mean that moves and nothing else, it is done again on ``log1p``: counts with
bursts often show their structure only there. Slow (the search takes a second or more): not for short intervals.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import pmdarima

FIRST_FIT = 5
"""Points before the first search; until then the last value is the forecast."""
KEPT = 300
"""Points that a search sees."""


@dataclass(frozen=True, slots=True)
class Arima:
    """A value: ``observe`` returns the next one. ``fitted`` is never changed in place."""

    points: tuple[float, ...] = ()
    fitted: Any = field(default=None, compare=False, repr=False)
    log: bool = False
    at_s: float | None = None
    step_s: float = 0.0

    @property
    def name(self) -> str:
        return "arima"

    @property
    def ready(self) -> bool:
        return bool(self.points)

    def observe(self, t_s: float, y: float) -> Arima:
        """The model after one more point. A fit that fails leaves the last value as the forecast."""
        step_s = self.step_s if self.at_s is None else t_s - self.at_s
        seen = replace(self, points=(*self.points, max(0.0, y))[-KEPT:], at_s=t_s, step_s=step_s)
        try:
            return _updated(seen) if self.fitted is not None else _searched(seen)
        except Exception:  # noqa: BLE001  # the library raises whatever its solvers raise
            return replace(seen, fitted=None)

    def mean(self, horizon_s: float) -> float:
        """The expected value so many seconds ahead, in whole steps, never below 0."""
        last = self.points[-1] if self.points else 0.0
        if self.fitted is None:
            return last
        steps = max(1, round(horizon_s / self.step_s)) if self.step_s > 0 else 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = float(self.fitted.predict(n_periods=steps)[-1])
            value = math.expm1(found) if self.log else found
        except Exception:  # noqa: BLE001  # as above
            return last
        return max(0.0, value) if math.isfinite(value) else last


def _searched(model: Arima) -> Arima:
    if len(model.points) < FIRST_FIT or len(set(model.points)) == 1:
        return model
    fitted = _search(model.points)
    log = _is_mean_only(fitted)
    if log:
        fitted = _search([math.log1p(y) for y in model.points])
    return replace(model, fitted=fitted, log=log)


def _updated(model: Arima) -> Arima:
    fitted, newest = copy.deepcopy(model.fitted), model.points[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.update([math.log1p(newest) if model.log else newest])
    return replace(model, fitted=fitted)


def _search(points: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pmdarima.auto_arima(list(points), suppress_warnings=True, error_action="ignore")


def _is_mean_only(fitted: Any) -> bool:
    p, _, q = fitted.order
    return bool(p == 0 and q == 0)


def predictor() -> Arima:
    """A fresh model."""
    return Arima()
