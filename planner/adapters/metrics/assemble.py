"""Makes one deployment's observation from a readout, by the table of metric names. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from planner.adapters.metrics.engine_metrics import (
    DYNAMO,
    SIM_WORKERS,
    SOURCES,
    TRAFFIC,
    WORKER_LABELS,
    EngineMetric,
    EngineMetricKind,
    Quantity,
    Source,
)
from planner.adapters.metrics.histogram import IntervalHistogram
from planner.adapters.metrics.series_selector import SeriesSelector
from planner.adapters.metrics.snapshot import GaugeSample, Snapshot
from planner.domain.ids import PoolId
from planner.domain.observation import DeploymentObservation, PoolObservation
from planner.domain.pool import Replicas, Role
from planner.domain.reading import NO_DATA, Missing, MissingReason, Reading, Sample

TAIL = 0.95
KV_USAGE_METRICS = frozenset(metric for source in SOURCES for metric in source.metrics.get(Quantity.KV_USAGE, ()))


def assemble(readout: Snapshot, target: SeriesSelector) -> DeploymentObservation:
    """The observation. Pools about whose workers nothing is exported are absent: unknown, not empty."""
    source = traffic_source(readout)
    isl, osl, ttft, itl = (
        _histogram_of(readout, source, quantity)
        for quantity in (Quantity.ISL_TOKENS, Quantity.OSL_TOKENS, Quantity.TTFT_MS, Quantity.ITL_MS)
    )
    return DeploymentObservation(
        interval_s=readout.interval_s,
        requests=_first(readout, source, Quantity.REQUESTS),
        isl_tokens=_first(readout, source, Quantity.ISL_TOKENS),
        osl_tokens=_first(readout, source, Quantity.OSL_TOKENS),
        ttft_ms=_first(readout, source, Quantity.TTFT_MS),
        itl_ms=_first(readout, source, Quantity.ITL_MS),
        request_duration_s=_first(readout, source, Quantity.REQUEST_DURATION_S),
        isl_cv2=_reading(isl.cv2() if isl else None),
        osl_cv2=_reading(osl.cv2() if osl else None),
        ttft_p95_ms=_reading(ttft.quantile(TAIL) if ttft else None),
        itl_p95_ms=_reading(itl.quantile(TAIL) if itl else None),
        kv_hit_rate=_bounded(_any(readout, Quantity.KV_HIT_RATE), 0.0, 1.0),
        accept_length=_bounded(_any(readout, Quantity.ACCEPT_LENGTH), 1.0, math.inf),
        pools=_pools(readout, target),
    )


def traffic_source(readout: Snapshot) -> Source:
    """The first source that exports anything about requests: frontends come before engines."""
    for source in SOURCES:
        names = (metric.name for quantity in TRAFFIC for metric in source.metrics.get(quantity, ()))
        if any(readout.has(name) for name in names):
            return source
    return DYNAMO


def _reading(value: float | None) -> Reading:
    return Sample(value) if value is not None and math.isfinite(value) else NO_DATA


def _bounded(reading: Reading, low: float, high: float) -> Reading:
    """A value outside what the quantity can be is no measurement."""
    if isinstance(reading, Sample) and not low <= reading.value <= high:
        return Missing(MissingReason.NOT_A_NUMBER)
    return reading


def _first(readout: Snapshot, source: Source, quantity: Quantity) -> Reading:
    """The first of the source's names for ``quantity`` that gives a sample, else the first reason why not."""
    missing: Missing | None = None
    for metric in source.metrics.get(quantity, ()):
        reading = read(readout, metric)
        if isinstance(reading, Sample):
            return reading
        if missing is None and readout.has(metric.name):
            missing = reading
    return missing or readout.failure or Missing(MissingReason.NOT_EXPORTED)


def _any(readout: Snapshot, quantity: Quantity) -> Reading:
    found = [_first(readout, source, quantity) for source in SOURCES]
    return next((reading for reading in found if isinstance(reading, Sample)), found[0])


def read(readout: Snapshot, metric: EngineMetric) -> Reading:
    """One metric as a reading, in the quantity's unit."""
    match metric.kind:
        case EngineMetricKind.COUNTER:
            reading = readout.increase(metric.name)
            return Sample(reading.value * metric.scale, reading.age_s) if isinstance(reading, Sample) else reading
        case EngineMetricKind.HISTOGRAM:
            histogram = readout.histogram(metric.name)
            if isinstance(histogram, Missing):
                return histogram
            return _reading(None if histogram.mean is None else histogram.mean * metric.scale)
        case EngineMetricKind.RATIO:
            return _ratio(readout.increase(metric.name), readout.increase(metric.per), metric)
        case EngineMetricKind.GAUGE:
            values = [sample.value for sample in readout.gauges.get(metric.name, ())]
            if not values:
                return readout.failure or NO_DATA
            return Sample(sum(values) / len(values) * metric.scale)


def _ratio(above: Reading, below: Reading, metric: EngineMetric) -> Reading:
    if isinstance(above, Missing):
        return above
    if isinstance(below, Missing):
        return below
    return Sample(metric.offset + metric.scale * above.value / below.value) if below.value > 0 else NO_DATA


def _histogram_of(readout: Snapshot, source: Source, quantity: Quantity) -> IntervalHistogram | None:
    for metric in source.metrics.get(quantity, ()):
        histogram = readout.histogram(metric.name) if metric.kind is EngineMetricKind.HISTOGRAM else None
        if isinstance(histogram, IntervalHistogram) and histogram.count > 0:
            return histogram.scaled(metric.scale)
    return None


def _pools(readout: Snapshot, target: SeriesSelector) -> Mapping[PoolId, PoolObservation]:
    counts = _sim_replicas(readout, target)
    queued = _by_pool(readout, target, Quantity.QUEUED_REQUESTS)
    running = _by_pool(readout, target, Quantity.RUNNING_REQUESTS)
    usage = _by_pool(readout, target, Quantity.KV_USAGE)
    pools: dict[PoolId, PoolObservation] = {}
    for pool, selector in target.pools.items():
        workers = {worker for gauges in (queued, running, usage) for worker in gauges.get(pool, {})}
        if pool not in counts and not workers:
            continue
        waiting = _sum(queued.get(pool))
        if isinstance(waiting, Missing) and selector.role is not Role.DECODE:
            waiting = _first(readout, DYNAMO, Quantity.QUEUED_REQUESTS)
        pools[pool] = PoolObservation(
            replicas=counts.get(pool, Replicas(ready=len(workers))),
            queued_requests=waiting,
            running_requests=_sum(running.get(pool)),
            kv_usage=_bounded(_mean(usage.get(pool)), 0.0, 1.0),
            complete=pool in counts,
        )
    return pools


def _sim_replicas(readout: Snapshot, target: SeriesSelector) -> Mapping[PoolId, Replicas]:
    counts: defaultdict[PoolId, dict[str, int]] = defaultdict(dict)
    for sample in readout.gauges.get(SIM_WORKERS, ()):
        pool = PoolId(sample.labels.get("pool", ""))
        if pool in target.pools:
            counts[pool][sample.labels.get("state", "")] = round(sample.value)
    states = ("ready", "starting", "terminating", "pending")
    return {pool: Replicas(**{state: by.get(state, 0) for state in states}) for pool, by in counts.items()}


def _by_pool(readout: Snapshot, target: SeriesSelector, quantity: Quantity) -> Mapping[PoolId, Mapping[str, float]]:
    """Values by pool and worker, from the first name that any worker exports."""
    for source in SOURCES:
        for metric in source.metrics.get(quantity, ()) if source.per_worker else ():
            samples = readout.gauges.get(metric.name, ())
            if samples:
                return _split(samples, target, metric)
    return {}


def _split(
    samples: Sequence[GaugeSample], target: SeriesSelector, metric: EngineMetric
) -> Mapping[PoolId, Mapping[str, float]]:
    """A worker with several series (data-parallel ranks) counts once: its queues add up, its KV use is their mean."""
    pools: defaultdict[PoolId, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        pool = target.pool_of(sample.labels)
        if pool is not None and math.isfinite(sample.value):
            worker = next((sample.labels[name] for name in WORKER_LABELS if name in sample.labels), "")
            pools[pool][worker].append(sample.value * metric.scale)
    share = metric in KV_USAGE_METRICS
    return {
        pool: {worker: sum(values) / (len(values) if share else 1) for worker, values in workers.items()}
        for pool, workers in pools.items()
    }


def _sum(values: Mapping[str, float] | None) -> Reading:
    return Sample(sum(values.values())) if values else NO_DATA


def _mean(values: Mapping[str, float] | None) -> Reading:
    return Sample(sum(values.values()) / len(values)) if values else NO_DATA
