"""Reads a deployment's metrics from Prometheus by range functions over its counters and histograms.

Must never let a window that decays pass for less load: when a frontend stops being scraped, ``increase()`` still
answers from older samples, so every reading is checked for the age of its newest sample and for resets first.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Mapping

from planner.adapters.metrics import promql
from planner.adapters.metrics.engine_metrics import TRAFFIC, EngineMetric, EngineMetricKind, Source
from planner.adapters.metrics.histogram import IntervalHistogram, histogram
from planner.adapters.metrics.metric_table import ENGINES, MetricTable
from planner.adapters.metrics.prometheus_client import PrometheusClient, PrometheusError, SeriesRow
from planner.adapters.metrics.series_selector import SeriesSelector
from planner.adapters.metrics.snapshot import GaugeSample, Snapshot
from planner.adapters.metrics.snapshot_observer import SnapshotObserver
from planner.domain.observation import DeploymentObservation
from planner.domain.reading import NO_DATA, Missing, MissingReason, Reading, Sample

log = logging.getLogger(__name__)

Rows = Mapping[str, list[SeriesRow]]
AGE, RESETS, MEAN = "age", "resets ", "mean "
"""Names of the queries beside those that are named after their series."""


class PrometheusObserver(SnapshotObserver):
    """One deployment's readings over the last ``window_s`` seconds.

    ``stale_s``: a newest sample older than this is no reading. ``load_time_scale`` as in ``EngineScraper``.
    ``pull_s``: also read means of queues and KV use over the window, as if they were read that often; None: no means.
    The client may be shared; whoever created it closes it.
    """

    def __init__(
        self,
        client: PrometheusClient,
        selector: SeriesSelector,
        *,
        window_s: float,
        stale_s: float = 60.0,
        load_time_scale: float = 1.0,
        pull_s: float | None = None,
        table: MetricTable = ENGINES,
    ) -> None:
        super().__init__(selector, table)
        self._client = client
        self._window_s = window_s
        self._stale_s = stale_s
        self._scale = load_time_scale
        self._pull_s = pull_s

    async def reread(self, then_s: float, now_s: float) -> DeploymentObservation:
        """The readings of the window that ended at ``then_s``: what ``observe`` would have returned then."""
        return self._assembled(await self._window(max(0.0, now_s - then_s)))

    async def close(self) -> None:
        """Nothing to close: the client belongs to its creator."""

    async def _snapshot(self, now_s: float) -> Snapshot:
        return await self._window(0.0)

    async def _window(self, ago_s: float) -> Snapshot:
        try:
            return await self._read(ago_s)
        except (PrometheusError, OSError) as error:
            self.last_error = str(error)
            log.warning("metrics of %s: %s", self.deployment, error)
            return Snapshot(self._window_s * self._scale, failure=Missing(MissingReason.UNREACHABLE))

    async def _read(self, ago_s: float) -> Snapshot:
        at_s = (await self._client.query("time()"))[0].value - ago_s
        present = await self._present(at_s)
        interval_s = self._window_s * self._scale
        if not present:
            return Snapshot(interval_s)
        traffic = next((source for source in present if any(_traffic(source, present[source]))), None)
        rows = await self._rows(present, traffic, at_s)
        trouble = self._trouble(rows, traffic, present)
        return _combined(rows, interval_s, self._table, traffic, trouble)

    async def _present(self, at_s: float) -> Mapping[Source, frozenset[str]]:
        """Names that have series now, by source, in the order of preference."""
        rows = await self._client.query(promql.presence(self._table.sources, self._selector), at_s)
        names = frozenset(row.labels.get("__name__", "") for row in rows)
        return {source: found for source in self._table.sources if (found := names & _names(source))}

    async def _rows(self, present: Mapping[Source, frozenset[str]], traffic: Source | None, at_s: float) -> Rows:
        """The answers to all queries, by query: three requests, whatever the number of metrics."""
        numbers, buckets, gauges = dict[str, str](), dict[str, str](), dict[str, str]()
        for source, names in present.items():
            matchers = promql.selector(self._selector, source)
            for quantity, metrics in source.metrics.items():
                if quantity in TRAFFIC and source is not traffic:
                    continue
                for metric in metrics:
                    if names.issuperset(promql.series_names(metric)):
                        self._ask(metric, matchers, numbers, buckets, gauges)
        if traffic is not None:
            numbers |= self._doubts(traffic, present[traffic])
        asked = [queries for queries in (numbers, buckets, gauges) if queries]
        answers = await asyncio.gather(*(self._client.query(promql.together(queries), at_s) for queries in asked))
        rows: dict[str, list[SeriesRow]] = {name: [] for queries in asked for name in queries}
        for row in (row for answer in answers for row in answer):
            rows[row.labels[promql.QUERY]].append(row)
        return rows

    def _ask(
        self,
        metric: EngineMetric,
        matchers: str,
        numbers: dict[str, str],
        buckets: dict[str, str],
        gauges: dict[str, str],
    ) -> None:
        for name, query in promql.increases_of(metric, matchers, self._window_s).items():
            kind = gauges if metric.kind is EngineMetricKind.GAUGE else buckets if name.endswith("_bucket") else numbers
            kind[name] = query
        if self._pull_s is not None and metric.name in self._table.averaged:
            gauges[MEAN + metric.name] = promql.gauge_mean(metric.name, matchers, self._window_s, self._pull_s)

    def _doubts(self, source: Source, names: frozenset[str]) -> dict[str, str]:
        """Queries that show whether the window's increases can be trusted."""
        matchers = promql.selector(self._selector, source)
        series = _counted(source, names)
        asked = {RESETS + name: promql.resets(name, matchers, self._window_s) for name in series}
        return {AGE: promql.age(series[0], matchers), **asked}

    def _trouble(self, rows: Rows, traffic: Source | None, present: Mapping[Source, frozenset[str]]) -> Missing | None:
        """Why the window's increases cannot be trusted: too old, or reset within it."""
        if traffic is None:
            return None
        age = rows.get(AGE)
        if not age or not age[0].value <= self._stale_s:
            return Missing(MissingReason.STALE, age[0].value if age else 0.0)
        if any(row.value > 0 for name in _counted(traffic, present[traffic]) for row in rows.get(RESETS + name, ())):
            return Missing(MissingReason.COUNTER_RESET)
        return None


def _names(source: Source) -> frozenset[str]:
    metrics = (metric for metrics in source.metrics.values() for metric in metrics)
    return frozenset(name for metric in metrics for name in promql.series_names(metric))


def _counted(source: Source, names: frozenset[str]) -> list[str]:
    """The source's counters and histogram parts that measure traffic."""
    metrics = [metric for metric in _traffic(source, names) if metric.kind is not EngineMetricKind.GAUGE]
    return [name for metric in metrics for name in promql.series_names(metric)]


def _traffic(source: Source, names: frozenset[str]) -> Iterable[EngineMetric]:
    for quantity in TRAFFIC:
        for metric in source.metrics.get(quantity, ()):
            if names.issuperset(promql.series_names(metric)):
                yield metric


def _combined(
    rows: Rows, interval_s: float, table: MetricTable, traffic: Source | None, trouble: Missing | None
) -> Snapshot:
    increases: dict[str, Reading] = {}
    histograms: dict[str, IntervalHistogram | Missing] = {}
    gauges: dict[str, tuple[GaugeSample, ...]] = {}
    for source in table.sources:
        for quantity, metrics in source.metrics.items():
            doubt = trouble if source is traffic and quantity in TRAFFIC else None
            for metric in metrics:
                _take(metric, rows, doubt, increases, histograms, gauges)
    means = {
        name: tuple(GaugeSample(row.labels, row.value) for row in rows[MEAN + name])
        for name in table.averaged
        if MEAN + name in rows
    }
    return Snapshot(interval_s, increases, histograms, gauges, means)


def _take(
    metric: EngineMetric,
    rows: Rows,
    doubt: Missing | None,
    increases: dict[str, Reading],
    histograms: dict[str, IntervalHistogram | Missing],
    gauges: dict[str, tuple[GaugeSample, ...]],
) -> None:
    if not any(name in rows for name in promql.series_names(metric)):
        return
    match metric.kind:
        case EngineMetricKind.GAUGE:
            gauges[metric.name] = tuple(GaugeSample(row.labels, row.value) for row in rows[metric.name])
        case EngineMetricKind.HISTOGRAM:
            histograms[metric.name] = doubt or _histogram(metric.name, rows)
        case _:
            for name in promql.series_names(metric):
                increases[name] = doubt or _single(rows.get(name, []))


def _single(rows: list[SeriesRow]) -> Reading:
    if not rows:
        return NO_DATA
    value = rows[0].value
    return Sample(value) if math.isfinite(value) else Missing(MissingReason.NOT_A_NUMBER)


def _histogram(name: str, rows: Rows) -> IntervalHistogram | Missing:
    count, total = _single(rows.get(f"{name}_count", [])), _single(rows.get(f"{name}_sum", []))
    if isinstance(count, Missing):
        return count
    if isinstance(total, Missing):
        return total
    buckets = {
        float(row.labels["le"].replace("+Inf", "inf")): row.value
        for row in rows.get(f"{name}_bucket", [])
        if "le" in row.labels and math.isfinite(row.value)
    }
    return histogram(count.value, total.value, buckets)
