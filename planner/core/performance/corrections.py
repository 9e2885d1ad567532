"""Correction factors for each phase, learned from one interval, as the sizing mode defines them."""

from __future__ import annotations

from collections.abc import Mapping

from planner.core.performance import observed_ratio
from planner.core.performance.engine_model import Engine
from planner.core.performance.observed_ratio import Ratio
from planner.core.performance.speeds_in_force import Speeds
from planner.core.sizing import classic, prefill_station
from planner.core.sizing.sized_load import SizedLoad
from planner.core.state import DeploymentState
from planner.domain.config import DeploymentConfig, PoolConfig, SizingMode
from planner.domain.ids import PoolId
from planner.domain.observation import DeploymentObservation
from planner.domain.pool import Role
from planner.domain.reading import Reading, value_or_none

PREFILL, DECODE = "prefill", "decode"


def corrections(
    config: DeploymentConfig,
    engine: Engine,
    state: DeploymentState,
    seen: DeploymentObservation | None,
    shape: SizedLoad | None,
    current: Mapping[PoolId, int],
    speeds: Mapping[PoolId, Speeds],
) -> Mapping[str, float]:
    """The factors after ``seen``; ``shape`` is the observed load, None if it is unknown.

    ``speeds``: what the speed of each pool's GPUs lay between; a pool that is absent teaches nothing.
    """
    known = {PREFILL: state.learned.corrections.get(PREFILL, 1.0), DECODE: state.learned.corrections.get(DECODE, 1.0)}
    if not config.correction or config.sizing is SizingMode.LOAD:
        return {}
    if seen is not None and config.sizing is SizingMode.CLASSIC:
        return known | _classic(config, seen, current)
    if seen is None or shape is None or shape.idle:
        return known
    itl = value_or_none(seen.itl_ms)
    late = {PREFILL: False, DECODE: itl is not None and itl > config.itl_ms}
    ratios: dict[str, Ratio | None] = {PREFILL: None, DECODE: None}
    for name, pool in config.pools.items():
        count = seen.pools[name].replicas.ready if name in seen.pools else current[name]
        if count <= 0 or name not in speeds:
            continue
        if pool.role is not Role.DECODE:
            ratios[PREFILL] = _ttft(config, engine, seen, shape, count, speeds[name])
        if pool.role is not Role.PREFILL:
            ratios[DECODE] = _itl(pool, engine, seen, shape, count, speeds[name], late=late[DECODE])
    return {
        phase: observed_ratio.learned(factor, _nearest(factor, ratios[phase]), seen.interval_s, late=late[phase])
        for phase, factor in known.items()
    }


def _nearest(factor: float, ratio: Ratio | None) -> float | None:
    return None if ratio is None else observed_ratio.nearest(factor, ratio)


def _ttft(
    config: DeploymentConfig, engine: Engine, seen: DeploymentObservation, shape: SizedLoad, count: int, speeds: Speeds
) -> Ratio | None:
    ttft = value_or_none(seen.ttft_ms)
    if ttft is None or engine.prefill is None or shape.queued_requests > count:
        return None
    queue = prefill_station.station(engine.prefill, shape, config.ttft_quantile, 1.0)
    low, high = (
        observed_ratio.ttft_ratio(
            ttft, queue.own_ms / speed, prefill_station.mean_response_ms(queue, shape, count, speed)
        )
        for speed in speeds
    )
    return None if low is None or high is None else Ratio(low, high)


def _itl(
    pool: PoolConfig,
    engine: Engine,
    seen: DeploymentObservation,
    shape: SizedLoad,
    count: int,
    speeds: Speeds,
    *,
    late: bool,
) -> Ratio | None:
    itl = value_or_none(seen.itl_ms)
    if itl is None or engine.decode is None:
        return None
    step_ms = itl * max(1.0, shape.accept_length)
    steps_per_s = shape.req_per_s * shape.decode_steps / count
    most = observed_ratio.itl_ratio(engine.decode, step_ms, steps_per_s, shape.context_tokens, late=late)
    if most is None:
        return None
    found, running = Ratio(most, most), _running(seen, pool.pool)
    if running is not None:
        found = observed_ratio.itl_range(most, engine.decode, running / count, steps_per_s, shape.context_tokens)
    prefill_s = 0.0
    if pool.role is Role.AGGREGATED and engine.prefill is not None:
        prefill_s = shape.req_per_s * engine.prefill.cost_ms(shape.prefill_tokens) / 1000.0 / count
    low, high = (
        ratio * speed * (1.0 - min(0.9, prefill_s / speed)) for ratio, speed in zip(found, speeds, strict=True)
    )
    return Ratio(low, high)


def _running(seen: DeploymentObservation, name: PoolId) -> float | None:
    return value_or_none(seen.pools[name].running_requests) if name in seen.pools else None


def _classic(config: DeploymentConfig, seen: DeploymentObservation, current: Mapping[PoolId, int]) -> dict[str, float]:
    """The published factors: each interval's own, neither bounded nor smoothed. Missing readings change nothing, and
    a mean that is not a number ends the published planner's interval."""
    means: tuple[Reading, ...] = (seen.isl_tokens, seen.osl_tokens, seen.ttft_ms, seen.itl_ms)
    isl, osl, ttft, itl = (value_or_none(reading) for reading in means)
    if isl is None or osl is None or any(map(classic.is_nan, means)):
        return {}
    prefill, decode = config.profile.as_measured
    requests, lasted = value_or_none(seen.requests), value_or_none(seen.request_duration_s)
    interval = classic.Interval(requests or 0.0, isl, osl, seen.interval_s)
    found = {}
    if ttft is not None and prefill is not None:
        found[PREFILL] = classic.prefill_correction(prefill, interval, ttft)
    decoders = [count for name, count in current.items() if config.pools[name].role is Role.DECODE]
    if requests is not None and itl is not None and lasted is not None and decode is not None and decoders:
        found[DECODE] = classic.decode_correction(decode, interval, itl, sum(decoders), lasted)
    return found
