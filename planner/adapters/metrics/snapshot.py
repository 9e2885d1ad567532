"""The result of one reading of metrics, whichever way it was read: the interface between fetching and interpreting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.adapters.metrics.histogram import IntervalHistogram
from planner.adapters.metrics.series_selector import Labels
from planner.domain.reading import NO_DATA, Missing, Reading


@dataclass(frozen=True, slots=True)
class GaugeSample:
    """One series of a gauge, as of the reading."""

    labels: Labels
    value: float


class GaugeMeans:
    """Means of gauges by series over the readings of one interval. A series that is absent from a reading has none."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[tuple[tuple[str, str], ...], tuple[float, int]]] = {}

    def add(self, gauges: Mapping[str, tuple[GaugeSample, ...]]) -> None:
        """Add one reading."""
        for name, samples in gauges.items():
            series = self._sums.setdefault(name, {})
            for sample in samples:
                if math.isfinite(sample.value):
                    key = tuple(sorted(sample.labels.items()))
                    total, count = series.get(key, (0.0, 0))
                    series[key] = (total + sample.value, count + 1)

    def take(self) -> Mapping[str, tuple[GaugeSample, ...]]:
        """Return the means and begin a new interval."""
        sums, self._sums = self._sums, {}
        return {
            name: tuple(GaugeSample(dict(key), total / count) for key, (total, count) in series.items())
            for name, series in sums.items()
        }


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Increases over ``interval_s`` load seconds and gauges as of the end, by metric name. Absent names: not exported.

    ``failure``: why nothing could be read at all; every quantity is then missing for that reason.
    """

    interval_s: float
    increases: Mapping[str, Reading] = field(default_factory=dict)
    histograms: Mapping[str, IntervalHistogram | Missing] = field(default_factory=dict)
    gauges: Mapping[str, tuple[GaugeSample, ...]] = field(default_factory=dict)
    means: Mapping[str, tuple[GaugeSample, ...]] = field(default_factory=dict)
    """Gauges as means over the interval, where they were read that often."""
    failure: Missing | None = None

    def increase(self, name: str) -> Reading:
        """A counter's increase."""
        return self.increases.get(name, self.failure or NO_DATA)

    def histogram(self, name: str) -> IntervalHistogram | Missing:
        """A histogram's increase."""
        return self.histograms.get(name, self.failure or NO_DATA)

    def has(self, name: str) -> bool:
        """Whether the name is exported for this deployment, even where its increase is missing this time."""
        return name in self.increases or name in self.histograms or name in self.gauges
