"""Makes one deployment's observation from a snapshot, by the table of metric names. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.adapters.metrics.engine_metrics import (
    DYNAMO,
    TRAFFIC,
    WORKER_LABELS,
    EngineMetric,
    EngineMetricKind,
    Quantity,
    Source,
)
from planner.adapters.metrics.histogram import IntervalHistogram
from planner.adapters.metrics.metric_table import ENGINES, MetricTable
from planner.adapters.metrics.series_selector import SeriesSelector
from planner.adapters.metrics.snapshot import GaugeSample, Snapshot
from planner.domain.ids import PoolId
from planner.domain.observation import DeploymentObservation, PoolObservation
from planner.domain.pool import Replicas, Role
from planner.domain.reading import NO_DATA, Missing, MissingReason, Reading, Sample

TAIL = 0.95


def assemble(snapshot: Snapshot, selector: SeriesSelector, table: MetricTable = ENGINES) -> DeploymentObservation:
    """The observation. Pools about whose workers nothing is exported are absent: unknown, not empty."""
    source = traffic_source(snapshot, table)
    isl, ttft, itl = (
        _histogram_of(snapshot, source, quantity)
        for quantity in (Quantity.ISL_TOKENS, Quantity.TTFT_MS, Quantity.ITL_MS)
    )
    return DeploymentObservation(
        interval_s=snapshot.interval_s,
        requests=_first(snapshot, source, Quantity.REQUESTS),
        isl_tokens=_first(snapshot, source, Quantity.ISL_TOKENS),
        osl_tokens=_first(snapshot, source, Quantity.OSL_TOKENS),
        ttft_ms=_first(snapshot, source, Quantity.TTFT_MS),
        itl_ms=_first(snapshot, source, Quantity.ITL_MS),
        request_duration_s=_first(snapshot, source, Quantity.REQUEST_DURATION_S),
        isl_cv2=_reading(isl.cv2() if isl else None),
        ttft_p95_ms=_reading(ttft.quantile(TAIL) if ttft else None),
        itl_p95_ms=_reading(itl.quantile(TAIL) if itl else None),
        ttft_within=_within(ttft, selector.ttft_ms),
        itl_within=_within(itl, selector.itl_ms),
        kv_hit_rate=_bounded(_any(snapshot, Quantity.KV_HIT_RATE, table), 0.0, 1.0),
        accept_length=_bounded(_any(snapshot, Quantity.ACCEPT_LENGTH, table), 1.0, math.inf),
        pools=_pools(snapshot, selector, table),
    )


def traffic_source(snapshot: Snapshot, table: MetricTable = ENGINES) -> Source:
    """The first source that exports anything about requests: frontends come before engines."""
    for source in table.sources:
        names = (metric.name for quantity in TRAFFIC for metric in source.metrics.get(quantity, ()))
        if any(snapshot.has(name) for name in names):
            return source
    return DYNAMO


def _reading(value: float | None) -> Reading:
    return Sample(value) if value is not None and math.isfinite(value) else NO_DATA


def _within(histogram: IntervalHistogram | None, target: float | None) -> Reading:
    return NO_DATA if histogram is None or target is None else _reading(histogram.share_within(target))


def _bounded(reading: Reading, low: float, high: float) -> Reading:
    """A value outside the possible range is not a measurement."""
    if isinstance(reading, Sample) and not low <= reading.value <= high:
        return Missing(MissingReason.NOT_A_NUMBER)
    return reading


def _first(snapshot: Snapshot, source: Source, quantity: Quantity) -> Reading:
    """The first of the source's names for ``quantity`` that gives a sample, else the first reason why not."""
    missing: Missing | None = None
    for metric in source.metrics.get(quantity, ()):
        reading = read(snapshot, metric)
        if isinstance(reading, Sample):
            return reading
        if missing is None and snapshot.has(metric.name):
            missing = reading
    return missing or snapshot.failure or Missing(MissingReason.NOT_EXPORTED)


def _any(snapshot: Snapshot, quantity: Quantity, table: MetricTable) -> Reading:
    found = [_first(snapshot, source, quantity) for source in table.sources]
    return next((reading for reading in found if isinstance(reading, Sample)), found[0])


def read(snapshot: Snapshot, metric: EngineMetric) -> Reading:
    """One metric as a reading, in the quantity's unit."""
    match metric.kind:
        case EngineMetricKind.COUNTER:
            reading = snapshot.increase(metric.name)
            return Sample(reading.value * metric.scale, reading.age_s) if isinstance(reading, Sample) else reading
        case EngineMetricKind.HISTOGRAM:
            histogram = snapshot.histogram(metric.name)
            if isinstance(histogram, Missing):
                return histogram
            return _reading(None if histogram.mean is None else histogram.mean * metric.scale)
        case EngineMetricKind.RATIO:
            return _ratio(snapshot.increase(metric.name), snapshot.increase(metric.per), metric)
        case EngineMetricKind.GAUGE:
            values = [sample.value for sample in snapshot.gauges.get(metric.name, ())]
            if not values:
                return snapshot.failure or NO_DATA
            return Sample(sum(values) / len(values) * metric.scale)


def _ratio(above: Reading, below: Reading, metric: EngineMetric) -> Reading:
    if isinstance(above, Missing):
        return above
    if isinstance(below, Missing):
        return below
    return Sample(metric.offset + metric.scale * above.value / below.value) if below.value > 0 else NO_DATA


def _histogram_of(snapshot: Snapshot, source: Source, quantity: Quantity) -> IntervalHistogram | None:
    for metric in source.metrics.get(quantity, ()):
        histogram = snapshot.histogram(metric.name) if metric.kind is EngineMetricKind.HISTOGRAM else None
        if isinstance(histogram, IntervalHistogram) and histogram.count > 0:
            return histogram.scaled(metric.scale)
    return None


def _pools(snapshot: Snapshot, selector: SeriesSelector, table: MetricTable) -> Mapping[PoolId, PoolObservation]:
    counts = _worker_counts(snapshot, selector, table)
    queued, running, usage = (
        _by_pool(snapshot.gauges, selector, table, quantity)
        for quantity in (Quantity.QUEUED_REQUESTS, Quantity.RUNNING_REQUESTS, Quantity.KV_USAGE)
    )
    means = replace(snapshot, gauges=snapshot.means)
    mean_queued, mean_usage = (
        _by_pool(snapshot.means, selector, table, quantity)
        for quantity in (Quantity.QUEUED_REQUESTS, Quantity.KV_USAGE)
    )
    pools: dict[PoolId, PoolObservation] = {}
    for pool, of_pool in selector.pools.items():
        workers = {worker for gauges in (queued, running, usage) for worker in gauges.get(pool, {})}
        if pool not in counts and not workers:
            continue
        waiting = _sum(queued.get(pool))
        mean_waiting = _sum(_of_those(mean_queued.get(pool), queued.get(pool)))
        if isinstance(waiting, Missing) and of_pool.role is not Role.DECODE:
            waiting = _first(snapshot, DYNAMO, Quantity.QUEUED_REQUESTS)
            mean_waiting = _first(means, DYNAMO, Quantity.QUEUED_REQUESTS)
        pools[pool] = PoolObservation(
            replicas=counts.get(pool, Replicas(ready=len(workers))),
            queued_requests=waiting,
            running_requests=_sum(running.get(pool)),
            kv_usage=_bounded(_mean(usage.get(pool)), 0.0, 1.0),
            mean_queued_requests=mean_waiting,
            mean_kv_usage=_bounded(_mean(_of_those(mean_usage.get(pool), usage.get(pool))), 0.0, 1.0),
            complete=pool in counts,
        )
    return pools


def _worker_counts(snapshot: Snapshot, selector: SeriesSelector, table: MetricTable) -> Mapping[PoolId, Replicas]:
    """Replicas by pool, from an exporter that counts them; empty where there is none."""
    counts: defaultdict[PoolId, dict[str, int]] = defaultdict(dict)
    for sample in snapshot.gauges.get(table.worker_counts, ()):
        pool = PoolId(sample.labels.get("pool", ""))
        if pool in selector.pools:
            counts[pool][sample.labels.get("state", "")] = round(sample.value)
    states = ("ready", "starting", "terminating", "pending")
    return {pool: Replicas(**{state: by.get(state, 0) for state in states}) for pool, by in counts.items()}


def _of_those(means: Mapping[str, float] | None, present: Mapping[str, float] | None) -> Mapping[str, float]:
    """The means of the workers that still exist: one that ended within the interval has no queue any more."""
    return {worker: mean for worker, mean in (means or {}).items() if worker in (present or {})}


def _by_pool(
    gauges: Mapping[str, tuple[GaugeSample, ...]], selector: SeriesSelector, table: MetricTable, quantity: Quantity
) -> Mapping[PoolId, Mapping[str, float]]:
    """Values by pool and worker, from the first name that any worker exports."""
    for source in table.sources:
        for metric in source.metrics.get(quantity, ()) if source.per_worker else ():
            if samples := gauges.get(metric.name, ()):
                return _split(samples, selector, metric.scale, mean=quantity is Quantity.KV_USAGE)
    return {}


def _split(
    samples: Sequence[GaugeSample], selector: SeriesSelector, scale: float, *, mean: bool
) -> Mapping[PoolId, Mapping[str, float]]:
    """A worker with several series (data-parallel ranks) counts once: as their sum, or as their ``mean``."""
    pools: defaultdict[PoolId, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        pool = selector.pool_of(sample.labels)
        if pool is not None and math.isfinite(sample.value):
            worker = next((sample.labels[name] for name in WORKER_LABELS if name in sample.labels), "")
            pools[pool][worker].append(sample.value * scale)
    return {
        pool: {worker: sum(values) / (len(values) if mean else 1) for worker, values in workers.items()}
        for pool, workers in pools.items()
    }


def _sum(values: Mapping[str, float] | None) -> Reading:
    return Sample(sum(values.values())) if values else NO_DATA


def _mean(values: Mapping[str, float] | None) -> Reading:
    return Sample(sum(values.values()) / len(values)) if values else NO_DATA
