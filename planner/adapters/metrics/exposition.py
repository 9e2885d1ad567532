"""A ``/metrics`` page as series of one deployment, and the increase from one page to the next. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from planner.adapters.metrics.engine_metrics import BOOT
from planner.adapters.metrics.histogram import IntervalHistogram, histogram
from planner.adapters.metrics.metric_table import ENGINES, MetricTable
from planner.adapters.metrics.series_selector import SeriesSelector
from planner.adapters.metrics.snapshot import GaugeSample
from planner.domain.reading import Missing, MissingReason, Reading, Sample

Key = tuple[tuple[str, str], ...]

Exported = tuple[str, dict[str, str], float]
"""A sample on a page: name, labels, value."""

SUFFIXES = ("_bucket", "_sum", "_count")
WORKER_COUNTS_MODEL_LABEL = "model"


class PageError(Exception):
    """A page that is not in the text exposition format."""


@dataclass(slots=True)
class MetricsPage:
    """One page's series that matter. ``cumulative`` holds counters and histogram parts by sample name and labels.

    ``boot``: when the exporter started, in its own seconds. ``load_s``: the load's clock, where the page shows one.
    """

    cumulative: defaultdict[str, dict[Key, float]] = field(default_factory=lambda: defaultdict(dict))
    gauges: defaultdict[str, list[GaugeSample]] = field(default_factory=lambda: defaultdict(list))
    boot: float | None = None
    load_s: float | None = None

    def take(self, sample: Exported, selector: SeriesSelector, table: MetricTable) -> None:
        """Keep the sample if it is one of the table's and of the deployment."""
        name, labels, value = sample
        if name == BOOT:
            self.boot = value
        elif name == table.load_clock:
            self.load_s = value
        elif name == table.worker_counts:
            if selector.matches(labels, WORKER_COUNTS_MODEL_LABEL):
                self.gauges[name].append(GaugeSample(labels, value))
        elif (base := _base(name, table)) is not None and selector.matches(labels, table.model_labels[base]):
            if name in table.gauges:
                self.gauges[name].append(GaugeSample(labels, value))
            else:
                self.cumulative[name][tuple(sorted(labels.items()))] = value


def parse_page(text: str, selector: SeriesSelector, table: MetricTable = ENGINES) -> MetricsPage:
    """The series of one deployment on a page. Raises PageError."""
    page = MetricsPage()
    try:
        for sample in _samples(text):
            page.take(sample, selector, table)
    except (ValueError, KeyError, IndexError) as error:
        raise PageError(f"not a metrics page: {error}") from error
    return page


def _samples(text: str) -> Iterator[Exported]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _base(name: str, table: MetricTable) -> str | None:
    """The table's name that a sample belongs to; None where it is not in the table."""
    if name in table.model_labels and name not in table.histograms:
        return name
    for suffix in SUFFIXES:
        base = name.removesuffix(suffix)
        if base is not name and base in table.histograms:
            return base
    return None


def restarted(before: MetricsPage, after: MetricsPage) -> bool:
    """Whether the exporter is another process than before: its start time moved, or a series it had is gone."""
    if before.boot is not None and after.boot is not None and before.boot != after.boot:
        return True
    return any(key not in after.cumulative.get(name, {}) for name, keys in before.cumulative.items() for key in keys)


def increase(name: str, before: MetricsPage, after: MetricsPage) -> Reading | None:
    """A counter's increase over all its series; None when the page has no such counter.

    A series that is new on the page of an exporter that did not restart counts from 0: it began with its first request.
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
