"""Which metric names are read, and what follows from the list: the indexes that reading and understanding need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from planner.adapters.metrics.engine_metrics import SOURCES, EngineMetric, EngineMetricKind, Quantity, Source


@dataclass(frozen=True)
class MetricTable:
    """Exporters in order of preference.

    ``load_clock``: a gauge that shows the load's own clock in seconds, for exporters whose time is not the planner's.
    ``worker_counts``: a gauge of workers with the labels ``pool`` and ``state`` (ready, starting, terminating,
    pending), for exporters that know them all. Both empty for real engines, which have neither.
    """

    sources: tuple[Source, ...] = SOURCES
    load_clock: str = ""
    worker_counts: str = ""

    @cached_property
    def model_labels(self) -> Mapping[str, str]:
        """The label that holds the model, by metric name."""
        return {
            name: source.model_label
            for source in self.sources
            for metrics in source.metrics.values()
            for metric in metrics
            for name in _names(metric)
        }

    @cached_property
    def histograms(self) -> frozenset[str]:
        """Names of histograms, without the suffixes of their parts."""
        return frozenset(metric.name for metric in self._metrics() if metric.kind is EngineMetricKind.HISTOGRAM)

    @cached_property
    def counters(self) -> frozenset[str]:
        """Names of counters, among them both of each ratio."""
        kinds = {EngineMetricKind.COUNTER, EngineMetricKind.RATIO}
        return frozenset(name for metric in self._metrics() if metric.kind in kinds for name in _names(metric))

    @cached_property
    def gauges(self) -> frozenset[str]:
        """Names of gauges."""
        return frozenset(metric.name for metric in self._metrics() if metric.kind is EngineMetricKind.GAUGE)

    @cached_property
    def averaged(self) -> frozenset[str]:
        """Names of gauges whose means over an interval decide in mode ``load``: queues and KV use."""
        return frozenset(
            metric.name
            for source in self.sources
            for quantity in (Quantity.QUEUED_REQUESTS, Quantity.KV_USAGE)
            for metric in source.metrics.get(quantity, ())
        )

    def _metrics(self) -> Iterator[EngineMetric]:
        for source in self.sources:
            for metrics in source.metrics.values():
                yield from metrics


def _names(metric: EngineMetric) -> list[str]:
    return [name for name in (metric.name, metric.per) if name]


ENGINES = MetricTable()
"""The frontends and engines of ``engine_metrics``."""
