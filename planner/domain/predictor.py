"""The interface of all forecasting models.

Models are frozen values: ``observe`` returns the next one. The core owns the light models; heavy ones live in adapters
and reach the core through the configuration, so that the core imports no statistics package.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class PointModel(Protocol):
    """Forecasts one quantity's mean. Never raises: a model that cannot be fitted returns the last value."""

    @property
    def name(self) -> str:
        """The model's name in configurations and explanations."""
        ...

    @property
    def ready(self) -> bool:
        """Whether anything has been observed yet."""
        ...

    def observe(self, t_s: float, y: float) -> PointModel:
        """The model after observing ``y`` at load instant ``t_s`` (seconds, never decreasing)."""
        ...

    def mean(self, horizon_s: float) -> float:
        """The expected value ``horizon_s`` seconds after the last observation, never below 0."""
        ...


@runtime_checkable
class TakesLogarithms(Protocol):
    """A model that may turn to ``log(1 + y)`` by itself."""

    def on_logarithms(self) -> PointModel:
        """The same model for values that are logarithms already, so that it does not take them again."""
        ...


@runtime_checkable
class RunsAsPublished(Protocol):
    """A model that the published 0.9 planner has too, and runs a little differently."""

    def as_published(self) -> PointModel:
        """The same model as published: from the first point on, and with forecasts that may be below 0."""
        ...
