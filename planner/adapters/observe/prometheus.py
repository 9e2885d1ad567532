"""Reads a deployment's metrics from Prometheus by range functions over its counters and histograms.

Must never let a window that decays pass for less load: when a frontend stops being scraped, ``increase()`` still
answers from older samples, so every reading is checked for the age of its newest sample and for resets first.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Mapping

from planner.adapters.observe import promql
from planner.adapters.observe.ages import Ages
from planner.adapters.observe.assemble import assemble
from planner.adapters.observe.histogram import Histogram, histogram
from planner.adapters.observe.metric_names import SOURCES, TRAFFIC, Kind, Metric, Quantity, Source
from planner.adapters.observe.prometheus_client import PrometheusClient, PrometheusError, Row
from planner.adapters.observe.readout import GaugeSample, Readout
from planner.adapters.observe.target import Target
from planner.domain.ids import DeploymentId
from planner.domain.observation import DeploymentObservation
from planner.domain.reading import NO_DATA, Missing, MissingReason, Reading, Sample

log = logging.getLogger(__name__)

Rows = Mapping[str, list[Row]]


class PrometheusObserver:
    """One deployment's readings over the last ``window_s`` seconds.

    ``stale_s``: a newest sample older than this is no reading. ``load_time_scale`` as in ``EngineScraper``.
    The client may be shared; whoever made it closes it, unless ``owns_client``.
    """

    def __init__(
        self,
        client: PrometheusClient,
        target: Target,
        *,
        window_s: float,
        stale_s: float = 60.0,
        load_time_scale: float = 1.0,
        owns_client: bool = False,
    ) -> None:
        self._client = client
        self._target = target
        self._window_s = window_s
        self._stale_s = stale_s
        self._scale = load_time_scale
        self._owns_client = owns_client
        self._ages = Ages()
        self.last_error = ""

    @property
    def deployment(self) -> DeploymentId:
        """Whose readings these are."""
        return self._target.deployment

    async def observe(self, now_s: float) -> DeploymentObservation:
        """The readings of the window that ends now. Never raises for what Prometheus answers or fails to."""
        try:
            readout = await self._read()
        except (PrometheusError, OSError) as error:
            self.last_error = str(error)
            log.warning("metrics of %s: %s", self.deployment, error)
            readout = Readout(self._window_s * self._scale, failure=Missing(MissingReason.UNREACHABLE))
        return self._ages.stamp(assemble(readout, self._target), now_s)

    async def close(self) -> None:
        """Close the connections, where they are this observer's own."""
        if self._owns_client:
            await self._client.close()

    async def _read(self) -> Readout:
        at_s = (await self._client.query("time()"))[0].value
        present = await self._present(at_s)
        interval_s = self._window_s * self._scale
        if not present:
            return Readout(interval_s)
        traffic = next((source for source in present if any(_traffic(source, present[source]))), None)
        trouble = await self._trouble(traffic, present[traffic], at_s) if traffic else None
        rows = await self._rows(present, traffic, at_s)
        return _readout(rows, interval_s, traffic, trouble)

    async def _present(self, at_s: float) -> Mapping[Source, frozenset[str]]:
        """Names that have series now, by source, in the order of preference."""
        answers = await asyncio.gather(
            *(self._client.query(promql.presence(s, promql.selector(self._target, s)), at_s) for s in SOURCES)
        )
        names = (frozenset(row.labels.get("__name__", "") for row in rows) for rows in answers)
        return {source: found for source, found in zip(SOURCES, names, strict=True) if found}

    async def _trouble(self, source: Source, names: frozenset[str], at_s: float) -> Missing | None:
        """Why the window's increases are not to be believed: too old, or reset within it."""
        matchers = promql.selector(self._target, source)
        metrics = [metric for metric in _traffic(source, names) if metric.kind is not Kind.GAUGE]
        series = [name for metric in metrics for name in promql.series_names(metric)]
        age, *resets = await asyncio.gather(
            self._client.query(promql.age(series[0], matchers), at_s),
            *(self._client.query(promql.resets(name, matchers, self._window_s), at_s) for name in series),
        )
        if not age or not age[0].value <= self._stale_s:
            return Missing(MissingReason.STALE, age[0].value if age else 0.0)
        if any(rows and rows[0].value > 0 for rows in resets):
            return Missing(MissingReason.COUNTER_RESET)
        return None

    async def _rows(self, present: Mapping[Source, frozenset[str]], traffic: Source | None, at_s: float) -> Rows:
        queries: dict[str, str] = {}
        for source, names in present.items():
            matchers = promql.selector(self._target, source)
            for quantity, metrics in source.metrics.items():
                if quantity in TRAFFIC and source is not traffic:
                    continue
                for metric in metrics:
                    if names.issuperset(promql.series_names(metric)):
                        queries.update(promql.increases_of(metric, matchers, self._window_s))
        answers = await asyncio.gather(*(self._client.query(query, at_s) for query in queries.values()))
        return dict(zip(queries, answers, strict=True))


def _traffic(source: Source, names: frozenset[str]) -> Iterable[Metric]:
    for quantity in TRAFFIC:
        for metric in source.metrics.get(quantity, ()):
            if names.issuperset(promql.series_names(metric)):
                yield metric


def _readout(rows: Rows, interval_s: float, traffic: Source | None, trouble: Missing | None) -> Readout:
    increases: dict[str, Reading] = {}
    histograms: dict[str, Histogram | Missing] = {}
    gauges: dict[str, tuple[GaugeSample, ...]] = {}
    for source in SOURCES:
        for quantity, metrics in source.metrics.items():
            doubt = trouble if source is traffic and quantity in TRAFFIC else None
            for metric in metrics:
                _take(metric, rows, doubt, increases, histograms, gauges)
    return Readout(interval_s, increases, histograms, gauges)


def _take(
    metric: Metric,
    rows: Rows,
    doubt: Missing | None,
    increases: dict[str, Reading],
    histograms: dict[str, Histogram | Missing],
    gauges: dict[str, tuple[GaugeSample, ...]],
) -> None:
    if not any(name in rows for name in promql.series_names(metric)):
        return
    match metric.kind:
        case Kind.GAUGE:
            gauges[metric.name] = tuple(GaugeSample(row.labels, row.value) for row in rows[metric.name])
        case Kind.HISTOGRAM:
            histograms[metric.name] = doubt or _histogram(metric.name, rows)
        case _:
            for name in promql.series_names(metric):
                increases[name] = doubt or _single(rows.get(name, []))


def _single(rows: list[Row]) -> Reading:
    if not rows:
        return NO_DATA
    value = rows[0].value
    return Sample(value) if math.isfinite(value) else Missing(MissingReason.NOT_A_NUMBER)


def _histogram(name: str, rows: Rows) -> Histogram | Missing:
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


__all__ = ["PrometheusObserver", "Quantity"]
