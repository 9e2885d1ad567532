"""A daily pattern around any model, weighted by how much it has improved the forecast.

A daily pattern helps only at horizons beyond a worker's start-up time, and only for loads that have one. So forecasts
with and without it run side by side, and its weight follows their measured errors. It starts at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from planner.domain.predictor import PointModel

DAY_S = 86_400.0
BINS = 96
LEARNING = 0.5
"""Share of the new day in a bin's value."""
MEMORY = 0.98
MIN_SEPARATION = 0.75
"""Forecasts kept for comparison are at least a quarter of the horizon apart: more would only cost memory."""
LARGEST_RATIO = 4.0
SMALLEST_GAIN = 0.05
"""The pattern must be better by this share before it gets any weight; it is judged where it foresees as much change."""


@dataclass(frozen=True, slots=True)
class Seasonal:
    """``shape[i]``: recent mean of bin ``i`` of the day; ``due``: (when, bare, shaped) forecasts to be compared."""

    model: PointModel
    horizon_s: float = 300.0
    shape: tuple[float | None, ...] = (None,) * BINS
    open_bin: int = -1
    open_sum: float = 0.0
    open_count: int = 0
    seen_s: float = 0.0
    due: tuple[tuple[float, float, float], ...] = ()
    bare_error: float = 0.0
    shaped_error: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.model.name}+day"

    @property
    def ready(self) -> bool:
        return self.model.ready

    @property
    def weight(self) -> float:
        """The weight of the pattern, 0..1."""
        if self.bare_error <= 0.0:
            return 0.0
        gain = 1.0 - self.shaped_error / self.bare_error
        return min(1.0, max(0.0, (gain - SMALLEST_GAIN) * 4.0))

    def observe(self, t_s: float, y: float) -> Seasonal:
        fresh = replace(_with_bin(_judged(self, t_s, y), t_s, y), model=self.model.observe(t_s, y), seen_s=t_s)
        if fresh.due and fresh.due[-1][0] > t_s + self.horizon_s * MIN_SEPARATION:
            return fresh
        bare = fresh.model.mean(self.horizon_s)
        due = (t_s + self.horizon_s, bare, bare * fresh.ratio(self.horizon_s))
        return replace(fresh, due=(*fresh.due, due))

    def mean(self, horizon_s: float) -> float:
        bare = self.model.mean(horizon_s)
        weight = self.weight
        return bare if weight <= 0.0 else bare * self.ratio(horizon_s) ** weight

    def ratio(self, horizon_s: float) -> float:
        """The ratio of the pattern ``horizon_s`` after the last observation to that at it; 1 where unknown."""
        then, now = self._level(self.seen_s + horizon_s), self._level(self.seen_s)
        if then is None or now is None or now <= 0.0 or then <= 0.0:
            return 1.0
        return min(LARGEST_RATIO, max(1.0 / LARGEST_RATIO, then / now))

    def _level(self, t_s: float) -> float | None:
        """The pattern at an instant, interpolated between the middles of its bins."""
        place = (t_s % DAY_S) / DAY_S * BINS - 0.5
        low = math.floor(place)
        before, after = self.shape[low % BINS], self.shape[(low + 1) % BINS]
        if before is None or after is None:
            return None
        return before + (place - low) * (after - before)


def _judged(model: Seasonal, t_s: float, y: float) -> Seasonal:
    """The model after comparing the oldest due forecast with the observation, where the pattern foresaw a change.

    A night in which it foresees nothing says nothing about the morning.
    """
    if not model.due or model.due[0][0] > t_s:
        return model
    _, bare, shaped = model.due[0]
    if abs(shaped - bare) <= SMALLEST_GAIN * bare:
        return replace(model, due=model.due[1:])
    return replace(
        model,
        due=model.due[1:],
        bare_error=MEMORY * model.bare_error + abs(y - bare),
        shaped_error=MEMORY * model.shaped_error + abs(y - shaped),
    )


def _with_bin(model: Seasonal, t_s: float, y: float) -> Seasonal:
    """The model after adding ``y`` to the open bin; a finished bin becomes part of the pattern."""
    here = _bin(t_s)
    if here == model.open_bin:
        return replace(model, open_sum=model.open_sum + y, open_count=model.open_count + 1)
    shape = list(model.shape)
    if model.open_count:
        mean, old = model.open_sum / model.open_count, shape[model.open_bin]
        shape[model.open_bin] = mean if old is None else old + LEARNING * (mean - old)
    return replace(model, shape=tuple(shape), open_bin=here, open_sum=y, open_count=1)


def _bin(t_s: float) -> int:
    return int((t_s % DAY_S) / DAY_S * BINS) % BINS
