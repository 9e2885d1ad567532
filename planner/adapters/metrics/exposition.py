"""A ``/metrics`` page as series of one deployment, and the increase from one page to the next. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from planner.adapters.metrics.engine_metrics import BOOT, SIM_LOAD_SECONDS, SIM_WORKERS, SOURCES, EngineMetricKind
from planner.adapters.metrics.histogram import IntervalHistogram, histogram
from planner.adapters.metrics.series_selector import SeriesSelector
from planner.adapters.metrics.snapshot import GaugeSample
from planner.domain.reading import Missing, MissingReason, Reading, Sample

Key = tuple[tuple[str, str], ...]

MODEL_LABELS: Mapping[str, str] = {
    name: source.model_label
    for source in SOURCES
    for metrics in source.metrics.values()
    for metric in metrics
    for name in (metric.name, metric.per)
    if name
}
HISTOGRAMS = frozenset(
    metric.name
    for source in SOURCES
    for metrics in source.metrics.values()
    for metric in metrics
    if metric.kind is EngineMetricKind.HISTOGRAM
)
COUNTERS = frozenset(
    name
    for source in SOURCES
    for metrics in source.metrics.values()
    for metric in metrics
    if metric.kind in {EngineMetricKind.COUNTER, EngineMetricKind.RATIO}
    for name in (metric.name, metric.per)
    if name
)
GAUGES = frozenset(
    metric.name
    for source in SOURCES
    for metrics in source.metrics.values()
    for metric in metrics
    if metric.kind is EngineMetricKind.GAUGE
)
SUFFIXES = ("_bucket", "_sum", "_count")


class PageError(Exception):
    """A page that is not in the text exposition format."""


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """One page's series that matter. ``cumulative`` holds counters and histogram parts by sample name and labels."""

    cumulative: Mapping[str, Mapping[Key, float]]
    gauges: Mapping[str, tuple[GaugeSample, ...]]
    boot: float | None = None
    load_s: float | None = None


def parse_page(text: str, target: SeriesSelector) -> MetricsPage:
    """The series of ``target`` on a page. Raises PageError."""
    cumulative: defaultdict[str, dict[Key, float]] = defaultdict(dict)
    gauges: defaultdict[str, list[GaugeSample]] = defaultdict(list)
    alone: dict[str, float] = {}
    try:
        for name, labels, value in _samples(text):
            base = _base(name)
            if name in {BOOT, SIM_LOAD_SECONDS}:
                alone[name] = value
            elif name == SIM_WORKERS:
                if target.matches(labels, "model"):
                    gauges[name].append(GaugeSample(labels, value))
            elif base is None or not target.matches(labels, MODEL_LABELS[base]):
                continue
            elif name in GAUGES:
                gauges[name].append(GaugeSample(labels, value))
            else:
                cumulative[name][tuple(sorted(labels.items()))] = value
    except (ValueError, KeyError, IndexError) as error:
        raise PageError(f"not a metrics page: {error}") from error
    frozen = {name: tuple(samples) for name, samples in gauges.items()}
    return MetricsPage(dict(cumulative), frozen, alone.get(BOOT), alone.get(SIM_LOAD_SECONDS))


def _samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _base(name: str) -> str | None:
    """The table's name that a sample belongs to, or None when it is none of ours."""
    if name in MODEL_LABELS and name not in HISTOGRAMS:
        return name
    for suffix in SUFFIXES:
        base = name.removesuffix(suffix)
        if base is not name and base in HISTOGRAMS:
            return base
    return None


def restarted(before: MetricsPage, after: MetricsPage) -> bool:
    """Whether the exporter is another process than before: its start time moved, or a series it had is gone."""
    if before.boot is not None and after.boot is not None and before.boot != after.boot:
        return True
    return any(key not in after.cumulative.get(name, {}) for name, keys in before.cumulative.items() for key in keys)


def increase(name: str, before: MetricsPage, after: MetricsPage) -> Reading | None:
    """A counter's increase over all its series; None when the page has no such counter.

    A series that is new on a page whose exporter went on counts from 0: it began with its first request.
    """
    series = after.cumulative.get(name)
    if series is None:
        return None
    total = 0.0
    old = before.cumulative.get(name, {})
    for key, value in series.items():
        step = value - old.get(key, 0.0)
        if not math.isfinite(value):
            return Missing(MissingReason.NOT_A_NUMBER)
        if step < 0:
            return Missing(MissingReason.COUNTER_RESET)
        total += step
    return Sample(total)


def histogram_increase(name: str, before: MetricsPage, after: MetricsPage) -> IntervalHistogram | Missing | None:
    """A histogram's increase over all its series; None when the page has no such histogram."""
    count, total = increase(f"{name}_count", before, after), increase(f"{name}_sum", before, after)
    if count is None or total is None:
        return None
    for part in (count, total):
        if isinstance(part, Missing):
            return part
    buckets = _bucket_increases(name, before, after)
    return histogram(_value(count), _value(total), buckets)


def _value(reading: Reading) -> float:
    return reading.value if isinstance(reading, Sample) else math.nan


def _bucket_increases(name: str, before: MetricsPage, after: MetricsPage) -> Mapping[float, float]:
    old = before.cumulative.get(f"{name}_bucket", {})
    steps: defaultdict[float, float] = defaultdict(float)
    for key, value in after.cumulative.get(f"{name}_bucket", {}).items():
        bound = float(dict(key)["le"].replace("+Inf", "inf"))
        steps[bound] += max(0.0, value - old.get(key, 0.0))
    return steps


def total_increase(parts: Sequence[Reading | None]) -> Reading | None:
    """The sum over several pages. One missing part makes the sum missing: a part of the load is not the load."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    for part in known:
        if isinstance(part, Missing):
            return part
    return Sample(sum(_value(part) for part in known))
