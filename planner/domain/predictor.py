"""The one interface behind which every forecasting model stands.

Models are frozen values: ``observe`` returns the next one. The core owns the light models; heavy ones live in adapters
and are handed to the core through the configuration, so that the core imports no statistics package.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class PointModel(Protocol):
    """Forecasts one quantity's mean. Never raises: a model that can not fit answers with the last value."""

    @property
    def name(self) -> str:
        """The model's name, as a configuration writes it and an explanation shows it."""
        ...

    @property
    def ready(self) -> bool:
        """Whether anything was observed yet."""
        ...

    def observe(self, t_s: float, y: float) -> PointModel:
        """The model after seeing ``y`` at ``t_s`` seconds of load time. Times never fall."""
        ...

    def mean(self, horizon_s: float) -> float:
        """The expected value ``horizon_s`` seconds after the last observation, never below 0."""
        ...
