"""ARIMA by pmdarima, as Dynamo users know it: orders chosen once, then updated with each observation.

Forecasts the last value until there are five, and whenever a fit fails. A raw fit that collapses to (0, d, 0), a model
that forecasts its last value at every horizon, is tried again on ``log(1 + y)``, unless the values are logarithms
already. A value like every ``PointModel``: the fitted model behind it is shared along one sequence of observations and
fitted again where a sequence branches.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
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

    def as_published(self) -> PublishedArima:
        """The model as the published 0.9 planner fits it: when a forecast is asked for, not at every observation."""
        return PublishedArima(on_logs=self.on_logs)

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


@dataclass(slots=True)
class _FittedOnDemand:
    """A fitted model with the observations it saw: ``points`` of ``history``, the rest wait for the next forecast."""

    model: Any
    logged: bool
    history: tuple[float, ...]
    forecast: float


@dataclass(frozen=True, slots=True)
class PublishedArima:
    """0.9.1's ARIMA. It learns all observations since the last forecast at once, which gives other numbers than one by
    one.

    ``history`` is kept whole, oldest first, as there.
    """

    history: tuple[float, ...] = ()
    line: list[_FittedOnDemand] = field(default_factory=list, compare=False, repr=False)
    """At most one entry: the model that all values of this sequence of observations share."""
    on_logs: bool = False

    def on_logarithms(self) -> PublishedArima:
        """The same model for values that are logarithms already: a collapsed fit stands."""
        return PublishedArima(self.history, [], on_logs=True)

    def as_published(self) -> PublishedArima:
        """Itself."""
        return self

    @property
    def name(self) -> str:
        return "arima"

    @property
    def ready(self) -> bool:
        return bool(self.history)

    def observe(self, t_s: float, y: float) -> PublishedArima:
        line = self.line if self.history else []  # every quantity starts its own sequence
        return PublishedArima((*self.history, max(0.0, y)), line, self.on_logs)

    def mean(self, horizon_s: float) -> float:
        if len(self.history) < MIN_POINTS:
            return self.history[-1] if self.history else 0.0
        if len(set(self.history)) == 1:
            return self.history[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._forecast()

    def _forecast(self) -> float:
        known = self.line[0] if self.line else None
        if known is not None and known.history == self.history:
            return known.forecast
        if known is not None and self.history[: len(known.history)] != known.history:
            known = None  # not the shared model's sequence of observations
        try:
            if known is None:
                model, logged = self._fitted()
                known = _FittedOnDemand(model, logged, (), 0.0)
            else:
                new = self.history[len(known.history) :]
                known.model.update([math.log1p(y) if known.logged else y for y in new])
            value = float(known.model.predict(n_periods=1)[0])
            value = max(0.0, math.expm1(value) if known.logged else value)
        except Exception:  # noqa: BLE001 - whatever a numeric library raises: the last value stands
            if known is None:
                return self.history[-1]
            value = self.history[-1]  # it never learns what it failed to learn, as published
        self.line[:] = [_FittedOnDemand(known.model, known.logged, self.history, value)]
        return value

    def _fitted(self) -> tuple[Any, bool]:
        """The model and whether it is one of logarithms: a raw fit that collapses is tried again on them."""
        model = _orders(self.history)
        if self.on_logs or model.order[0] or model.order[2]:
            return model, False
        try:
            return _orders([math.log1p(y) for y in self.history]), True
        except Exception:  # noqa: BLE001 - likewise: the raw fit stands
            return model, False


def _orders(values: Sequence[float]) -> Any:
    return pmdarima.auto_arima(list(values), suppress_warnings=True, error_action="ignore")


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
    model = _orders(now.history)
    if now.on_logs or model.order[0] or model.order[2]:
        return _Fitted(model, now.points, logged=False)
    return _Fitted(_orders([math.log1p(max(0.0, y)) for y in now.history]), now.points, logged=True)


def predictor() -> Arima:
    """A fresh model."""
    return Arima()
