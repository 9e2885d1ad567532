"""Mode ``sla``: the least capacity that meets the TTFT quantile and the mean ITL, queues included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeAlias, TypedDict

import numpy as np

from planner.core.performance.decode_model import DecodeModel
from planner.core.performance.engine_model import Engine
from planner.core.performance.prefill_model import PrefillModel
from planner.core.sizing import decode_station, prefill_station, sla_reasons
from planner.core.sizing.late_prompts.transient import Prompts
from planner.core.sizing.options import SPARE_COUNTS, PoolOptions, wanted_count
from planner.core.sizing.prefill_station import NOTHING_KNOWN, Known
from planner.core.sizing.queueing import CountArray, Station
from planner.core.sizing.sized_load import Corrections, SizedLoad
from planner.domain.config import DeploymentConfig, PoolConfig
from planner.domain.demand import IN_TIME_AT_NEED
from planner.domain.pool import Role

_FIRST_GUESS = 128
"""Number of counts tried at first: a longer row costs almost nothing, a second one as much as the first."""

_Answer: TypeAlias = tuple[CountArray, CountArray]
"""Required speed and utilisation by count."""


_Rule: TypeAlias = Callable[[CountArray], _Answer]


def options(
    config: DeploymentConfig,
    pool: PoolConfig,
    engine: Engine,
    load: SizedLoad,
    corrections: Corrections,
    known: Known = NOTHING_KNOWN,
    held: int = 0,
) -> PoolOptions | None:
    """Every useful count of ``pool`` with the speed it needs; None where the profile lacks the phase.

    ``known``: the answers to ``asked``, where they were found for many deployments at once. ``held``: the replicas that
    it has. All of them have their own speed, however few are wanted: a kept decode replica needs at least an empty
    engine's speed, which the 1 / count law beyond the table does not know.
    """
    waiting, sized = _waiting(config, engine, load, corrections), load
    if waiting > 0.0 and pool.role is Role.DECODE:
        sized = _behind_prefill(config, engine, load, corrections)
    rule = _rule(config, pool.role, engine, sized, corrections, known)
    if rule is None:
        return None
    counts, speed, busy, wanted = _table(rule, pool, sized, held)
    last = min(len(counts), max(2, 2 * wanted + SPARE_COUNTS, held + 1))
    found = PoolOptions(
        speed=tuple(speed[:last].tolist()),
        utilisation=tuple(np.where(counts > 0, np.minimum(1.0, busy), 0.0)[:last].tolist()),
        wanted=wanted,
        least_speed=_least_speed(config, pool.role, engine, sized, corrections),
        chain=sla_reasons.chain(config, pool, engine, sized, corrections, wanted),
        **_phases(config, pool.role, engine, sized, corrections, counts[:last], known),
    )
    if waiting <= 0.0:
        return found
    flowing = load.flowing()
    flow = _rule(config, pool.role, engine, flowing, corrections, known)
    if flow is None:
        return found
    flows = sla_reasons.chain(config, pool, engine, flowing, corrections, _table(flow, pool, flowing).wanted)
    return replace(found, chain=sla_reasons.backlog(config, pool, flows, waiting, wanted))


def asked(config: DeploymentConfig, engine: Engine, load: SizedLoad, corrections: Corrections) -> list[Prompts]:
    """What ``options`` asks of the transient model, for all pools: one answer serves several of them."""
    if engine.prefill is None or load.idle or not load.rates:
        return []
    if all(pool.role is Role.DECODE for pool in config.pools.values()):
        return []
    queue = prefill_station.station(engine.prefill, load, config.ttft_quantile, corrections.prefill)
    waits = prefill_station.waiting_at_help(queue, load) > 0.0
    found = [
        prefill_station.prompts(queue, each, config.ttft_ms) for each in ((load, load.flowing()) if waits else (load,))
    ]
    if (arriving := _arriving_queue(engine, load, corrections)) is not None:
        found.append(prefill_station.prompts(*arriving, config.ttft_ms))
    return found


class _Counted(NamedTuple):
    """Counts with the speed that they need and their busy share, and how many are wanted."""

    counts: CountArray
    speed: CountArray
    busy: CountArray
    wanted: int


def _waiting(config: DeploymentConfig, engine: Engine, load: SizedLoad, corrections: Corrections) -> float:
    """Prompts that will wait when new replicas serve."""
    if engine.prefill is None or load.idle:
        return 0.0
    queue = prefill_station.station(engine.prefill, load, config.ttft_quantile, corrections.prefill)
    return prefill_station.waiting_at_help(queue, load)


def _behind_prefill(config: DeploymentConfig, engine: Engine, load: SizedLoad, corrections: Corrections) -> SizedLoad:
    """The load of decode engines: prompts that wait for prefill come to them as soon as more prefill serves.

    No more answers are in flight at once than prompts waited, so that where answers last longer than the backlog is
    worked off, their duration bounds the additional rate.
    """
    if engine.decode is None:
        return load
    step_ms = decode_station.step_target_ms(engine.decode, load, config.itl_ms, corrections.decode)
    answer_s = load.decode_steps * step_ms / 1000.0
    released = _waiting(config, engine, load, corrections) / max(config.drain_backlog_s, answer_s)
    held = load.req_per_s if load.held_req_per_s is None else load.held_req_per_s
    return replace(load, held_req_per_s=held + released)


def _rule(
    config: DeploymentConfig, role: Role, engine: Engine, load: SizedLoad, corrections: Corrections, known: Known
) -> _Rule | None:
    if role is Role.PREFILL and engine.prefill is not None:
        return _prefill(config, engine.prefill, load, corrections.prefill, known)
    if role is Role.DECODE and engine.decode is not None:
        return _decode(config, engine.decode, load, corrections.decode)
    if role is Role.AGGREGATED and engine.prefill is not None and engine.decode is not None:
        return _shared(
            _prefill(config, engine.prefill, load, corrections.prefill, known),
            _decode(config, engine.decode, load, corrections.decode),
        )
    return None


def _least_speed(
    config: DeploymentConfig, role: Role, engine: Engine, load: SizedLoad, corrections: Corrections
) -> float:
    if role is Role.DECODE or engine.prefill is None or load.idle:
        return 0.0
    return prefill_station.full_batch_speed(engine.prefill, load, config.ttft_ms, corrections.prefill)


class _Phases(TypedDict, total=False):
    arriving: tuple[float, ...]
    prompts: tuple[float, ...]


def _phases(
    config: DeploymentConfig,
    role: Role,
    engine: Engine,
    load: SizedLoad,
    corrections: Corrections,
    counts: CountArray,
    known: Known,
) -> _Phases:
    """The speeds from which shares of good requests are predicted, by phase, where they differ from the sized speed."""
    if load.idle:
        return {}
    prompts = None if role is Role.DECODE else _arriving_prompts(config, engine, load, corrections, counts, known)
    if role is Role.PREFILL or engine.decode is None:
        return {} if prompts is None else {"prompts": _tuple(counts, prompts)}
    answers = decode_station.arriving_speed(engine.decode, load, counts, config.itl_ms, corrections.decode)
    if role is Role.DECODE or engine.prefill is None:
        return {"arriving": _tuple(counts, answers)}
    sized, busy = _prefill(config, engine.prefill, load, corrections.prefill, known)(counts)
    # The time that prefill takes is lost to decode.
    return {
        "arriving": _tuple(counts, answers + busy),
        "prompts": _tuple(counts, sized if prompts is None else prompts),
    }


def _arriving_prompts(
    config: DeploymentConfig,
    engine: Engine,
    load: SizedLoad,
    corrections: Corrections,
    counts: CountArray,
    known: Known,
) -> CountArray | None:
    """The speed at which ``IN_TIME_AT_NEED`` of the prompts that ARRIVE are in time; None where it is not known.

    Sizing must assume the rates that may come while a replica starts. A prediction must not: after a jump in the load
    they stay at twice the rate for many minutes, and would take GPUs and watts from decode that prefill does not need.
    """
    if (arriving := _arriving_queue(engine, load, corrections)) is None:
        return None
    return prefill_station.required_speed(*arriving, counts, config.ttft_ms, config.drain_backlog_s, known)


def _arriving_queue(engine: Engine, load: SizedLoad, corrections: Corrections) -> tuple[Station, SizedLoad] | None:
    """The prompts that arrive, at the station from which their share in time is predicted; None where not known."""
    arrives = load.as_it_arrives()
    if engine.prefill is None or arrives is None:
        return None
    return prefill_station.station(engine.prefill, arrives, IN_TIME_AT_NEED, corrections.prefill), arrives


def _tuple(counts: CountArray, speed: CountArray) -> tuple[float, ...]:
    return tuple(np.where(counts > 0, speed, np.inf).tolist())


def _prefill(config: DeploymentConfig, model: PrefillModel, load: SizedLoad, correction: float, known: Known) -> _Rule:
    queue = prefill_station.station(model, load, config.ttft_quantile, correction)

    def answer(counts: CountArray) -> _Answer:
        speed = prefill_station.required_speed(queue, load, counts, config.ttft_ms, config.drain_backlog_s, known)
        return speed, queue.utilisation(counts)

    return answer


def _decode(config: DeploymentConfig, model: DecodeModel, load: SizedLoad, correction: float) -> _Rule:
    in_flight = decode_station.steps_per_ms(load) * decode_station.step_target_ms(
        model, load, config.itl_ms, correction
    )

    def answer(counts: CountArray) -> _Answer:
        speed = decode_station.required_speed(model, load, counts, config.itl_ms, correction)
        return speed, -np.expm1(-in_flight / np.maximum(counts, 1e-9))

    return answer


def _shared(first: _Rule, second: _Rule) -> _Rule:
    """Both phases on one engine: the time that prefill takes is lost to decode."""

    def answer(counts: CountArray) -> _Answer:
        for_prefill, prefill_busy = first(counts)
        for_decode, decode_busy = second(counts)
        return np.maximum(for_prefill, for_decode + prefill_busy), prefill_busy + decode_busy

    return answer


def _table(rule: _Rule, pool: PoolConfig, load: SizedLoad, held: int = 0) -> _Counted:
    """Counts from 0 to as many as may be of use or are ``held``."""
    most = max(pool.max_replicas, held)
    last = min(_FIRST_GUESS, max(1, most))
    while True:
        counts = np.arange(0, last + 1, dtype=np.float64)
        speed, busy = rule(counts)
        speed = np.zeros_like(counts) if load.idle else np.minimum.accumulate(np.where(counts > 0, speed, np.inf))
        enough = wanted_count(counts, speed)
        useful = min(max(1, most), max(2 * enough + SPARE_COUNTS, held))
        if useful <= last:
            return _Counted(counts, speed, busy, 0 if load.idle and pool.min_replicas == 0 else max(1, enough))
        last = min(max(useful, 4 * last), max(1, most))
