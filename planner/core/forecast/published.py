"""Forecasts as the published 0.9 planner makes them: of counts per interval, one interval ahead, bug for bug.

It leaves out the idle time before the first request, takes a mean over no requests (NaN) as zero, and uses a Kalman
filter's forecast even below zero. For sizing mode ``classic`` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.core.forecast import registry
from planner.domain.predictor import PointModel, RunsAsPublished

COUNT, ISL, OSL = "requests", "isl_tokens", "osl_tokens"
QUANTITIES = (COUNT, ISL, OSL)


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model without the zeros before the first other value."""

    model: PointModel
    awake: bool = False

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def ready(self) -> bool:
        return self.model.ready

    def observe(self, t_s: float, y: float) -> PublishedModel:
        if y == 0 and not self.awake:
            return self
        return PublishedModel(self.model.observe(t_s, y), awake=True)

    def mean(self, horizon_s: float) -> float:
        """The forecast; unlike other models' it may be below 0."""
        return self.model.mean(horizon_s) if self.ready else 0.0


def published(name: str, horizon_s: float, extra: Mapping[str, PointModel]) -> PublishedModel:
    """A fresh model of this name. Raises KeyError as ``registry.model`` does."""
    known = {base: _as_published(model) for base, model in {**registry.built_in(), **extra}.items()}
    return PublishedModel(registry.model(name, horizon_s, known))


def _as_published(model: PointModel) -> PointModel:
    return model.as_published() if isinstance(model, RunsAsPublished) else model


def asleep(model: PointModel) -> PointModel:
    """``model`` as before the first request: idle intervals do not count until the next one."""
    return replace(model, awake=False) if isinstance(model, PublishedModel) else model
