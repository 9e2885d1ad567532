"""Correction factors for each phase, learned from one interval, as the sizing mode defines them."""

from __future__ import annotations

from collections.abc import Mapping

from planner.core.performance import factor_by_length, observed_ratio, prompt_span
from planner.core.performance.engine_model import Engine
from planner.core.performance.observed_ratio import Ratio
from planner.core.performance.prompt_span import PromptsSeen, Span
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
    prompts: Span = (),
) -> Mapping[str, float]:
    """The factors after ``seen``; ``shape`` is the observed load, None if it is unknown.

    ``speeds``: what the speed of each pool's GPUs lay between; a pool that is absent teaches nothing. ``prompts``: what
    was seen up to this tick (``prompts_seen``).
    """
    known = {PREFILL: state.learned.corrections.get(PREFILL, 1.0), DECODE: state.learned.corrections.get(DECODE, 1.0)}
    if not config.correction or config.sizing is SizingMode.LOAD:
        return {}
    if seen is not None and config.sizing is SizingMode.CLASSIC:
        return known | _classic(config, seen, current)
    if seen is None or shape is None or shape.idle:
        return known
    if (tokens := prompt_span.mean_tokens(prompts)) is not None:
        known[PREFILL] = factor_by_length.at(state.learned.prefill_factors, tokens, known[PREFILL])
    itl = value_or_none(seen.itl_ms)
    late = {PREFILL: False, DECODE: itl is not None and itl > config.itl_ms}
    ratios: dict[str, Ratio | None] = {PREFILL: None, DECODE: None}
    for name, pool in config.pools.items():
        count = _ready(seen, current, name)
        if count <= 0 or name not in speeds:
            continue
        if pool.role is not Role.DECODE:
            ratios[PREFILL] = _ttft(config, engine, prompts)
        if pool.role is Role.PREFILL and (flow := _flow(engine, state.learned.prompts, prompts)) is not None:
            ratios[PREFILL], late[PREFILL] = flow, True
        if pool.role is not Role.PREFILL:
            ratios[DECODE] = _itl(pool, engine, seen, shape, count, speeds[name], late=late[DECODE])
    return {
        phase: observed_ratio.learned(factor, _nearest(factor, ratios[phase]), seen.interval_s, late=late[phase])
        for phase, factor in known.items()
    }


def by_length(
    known: factor_by_length.Known, config: DeploymentConfig, prompts: Span, factors: Mapping[str, float]
) -> factor_by_length.Known:
    """The factors of prefill by length with the newest of ``factors``, where the queue model uses it."""
    if not config.correction or config.sizing in (SizingMode.LOAD, SizingMode.CLASSIC):
        return ()
    tokens = prompt_span.mean_tokens(prompts)
    return known if tokens is None else factor_by_length.remembered(known, tokens, factors[PREFILL])


def _nearest(factor: float, ratio: Ratio | None) -> float | None:
    return None if ratio is None else observed_ratio.nearest(factor, ratio)


def _ready(seen: DeploymentObservation, current: Mapping[PoolId, int], name: PoolId) -> int:
    return seen.pools[name].replicas.ready if name in seen.pools else current[name]


def prompts_seen(
    config: DeploymentConfig,
    before: Span,
    seen: DeploymentObservation | None,
    shape: SizedLoad | None,
    current: Mapping[PoolId, int],
    speeds: Mapping[PoolId, Speeds],
    at_s: float,
) -> Span:
    """The span of prompts that ends at ``at_s``; as before where the tick does not tell what they were, or how fast
    their GPUs ran."""
    takers = [name for name, pool in config.pools.items() if pool.role is not Role.DECODE and name in speeds]
    if seen is None or not takers:
        return before
    name, requests = takers[-1], value_or_none(seen.requests)
    waiting = value_or_none(seen.pools[name].queued_requests) if name in seen.pools else None
    tick = PromptsSeen(at_s, seen.interval_s, *speeds[name], _ready(seen, current, name), waiting or 0.0)
    if shape is not None:
        cv2 = None if seen.isl_cv2 is None else value_or_none(seen.isl_cv2)
        tick = prompt_span.filled(tick, shape, cv2, value_or_none(seen.ttft_ms))
    elif requests != 0.0:
        return before
    return prompt_span.extended(before, tick)


def _ttft(config: DeploymentConfig, engine: Engine, prompts: Span) -> Ratio | None:
    found = prompt_span.means(prompts)
    if found is None or engine.prefill is None or prompts[-1].waiting > prompts[-1].ready:
        return None
    queue = prefill_station.station(engine.prefill, found.load, config.ttft_quantile, 1.0)
    low, high = (
        observed_ratio.ttft_ratio(
            found.ttft_ms,
            queue.own_ms / speed,
            prefill_station.mean_response_ms(queue, found.load, prompts[-1].ready, speed),
        )
        for speed in found.speeds
    )
    return None if low is None or high is None else Ratio(low, high)


def _flow(engine: Engine, before: Span, prompts: Span) -> Ratio | None:
    """What prefill engines that were full for the whole tick took for each prompt, over the profile's; None otherwise.

    They were where more prompts waited at both ends of it than one batch of each engine holds. TTFT then tells how long
    the queue is; how many prompts left it tells how fast the engines are.
    """
    if not before or not prompts or engine.prefill is None:
        return None
    start, end = before[-1], prompts[-1]
    if abs(end.at_s - end.seconds - start.at_s) > end.seconds / 2.0 or end.requests <= 0.0:
        return None
    tokens = end.tokens / end.requests
    together = max(1.0, engine.prefill.batched_tokens // tokens)
    passed = end.requests + start.waiting - end.waiting
    if min(start.waiting / max(1, start.ready), end.waiting / max(1, end.ready)) <= together or passed <= 0.0:
        return None
    engine_ms = 1000.0 * end.seconds / (passed * engine.prefill.cost_ms(tokens))
    fewest, most = sorted((start.ready, end.ready))
    found = Ratio(engine_ms * fewest * end.slowest, engine_ms * most * end.fastest)
    return found if found.high > 1.0 else None


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
