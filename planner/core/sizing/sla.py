"""Mode ``sla``: the least capacity that meets the TTFT quantile and the mean ITL, queues included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from planner.core.perf.decode import DecodeModel
from planner.core.perf.engine import Engine
from planner.core.perf.prefill import PrefillModel
from planner.core.sizing import decode, prefill
from planner.core.sizing.load import SizedLoad
from planner.core.sizing.options import SPARE_COUNTS, PoolOptions, wanted_count
from planner.core.sizing.queueing import Counts
from planner.domain.config import DeploymentConfig, PoolConfig
from planner.domain.plan import Limited
from planner.domain.pool import Role
from planner.domain.reasons import Reason

_FIRST_GUESS = 12
"""Counts tried before more: few deployments need a longer table."""

_Answer: TypeAlias = tuple[Counts, Counts]
"""Required speed and utilisation by count."""


@dataclass(frozen=True, slots=True)
class Corrections:
    """Live engines' times over the profile's, by phase."""

    prefill: float = 1.0
    decode: float = 1.0


@dataclass(frozen=True, slots=True)
class _Sizing:
    """One pool's rule with what it found unreachable."""

    answer: Callable[[Counts], _Answer]
    unreachable: tuple[str, ...]


def options(
    config: DeploymentConfig, pool: PoolConfig, engine: Engine, load: SizedLoad, corrections: Corrections
) -> PoolOptions | None:
    """Every useful count of ``pool`` with the speed it needs; None where the profile lacks the phase."""
    rule = _rule(config, pool.role, engine, load, corrections)
    if rule is None:
        return None
    counts, speed, busy = _table(rule, load, pool.max_replicas)
    wanted = wanted_count(counts, speed)
    wanted = 0 if load.idle and pool.min_replicas == 0 else max(1, wanted)
    last = min(len(counts), max(2, 2 * wanted + SPARE_COUNTS))
    return PoolOptions(
        speed=tuple(speed[:last].tolist()),
        utilisation=tuple(np.where(counts > 0, np.minimum(1.0, busy), 0.0)[:last].tolist()),
        wanted=wanted,
        chain=_chain(pool, load, rule, wanted),
    )


def _rule(
    config: DeploymentConfig, role: Role, engine: Engine, load: SizedLoad, corrections: Corrections
) -> _Sizing | None:
    if role is Role.PREFILL and engine.prefill is not None:
        return _prefill(config, engine.prefill, load, corrections.prefill)
    if role is Role.DECODE and engine.decode is not None:
        return _decode(config, engine.decode, load, corrections.decode)
    if role is Role.AGGREGATED and engine.prefill is not None and engine.decode is not None:
        return _shared(
            _prefill(config, engine.prefill, load, corrections.prefill),
            _decode(config, engine.decode, load, corrections.decode),
        )
    return None


def _prefill(config: DeploymentConfig, model: PrefillModel, load: SizedLoad, correction: float) -> _Sizing:
    queue = prefill.station(model, load, config.ttft_quantile, correction)

    def answer(counts: Counts) -> _Answer:
        speed = prefill.required_speed(queue, load, counts, config.ttft_ms, config.drain_backlog_s)
        return speed, queue.utilisation(counts)

    reachable = prefill.reachable(queue, config.ttft_ms)
    return _Sizing(answer, () if reachable else (_unreachable("TTFT", queue.own_ms, config.ttft_ms),))


def _decode(config: DeploymentConfig, model: DecodeModel, load: SizedLoad, correction: float) -> _Sizing:
    in_flight = decode.steps_per_ms(load) * decode.step_target_ms(model, load, config.itl_ms, correction)

    def answer(counts: Counts) -> _Answer:
        speed = decode.required_speed(model, load, counts, config.itl_ms, correction)
        return speed, -np.expm1(-in_flight / np.maximum(counts, 1e-9))

    if decode.reachable(model, load, config.itl_ms, correction):
        return _Sizing(answer, ())
    alone = model.itl_ms(1.0, load.context_tokens) * correction / max(1.0, load.accept_length)
    return _Sizing(answer, (_unreachable("ITL", alone, config.itl_ms),))


def _shared(first: _Sizing, second: _Sizing) -> _Sizing:
    """Both phases on one engine: the time that prefill takes is lost to decode."""

    def answer(counts: Counts) -> _Answer:
        for_prefill, prefill_busy = first.answer(counts)
        for_decode, decode_busy = second.answer(counts)
        return np.maximum(for_prefill, for_decode + prefill_busy), prefill_busy + decode_busy

    return _Sizing(answer, first.unreachable + second.unreachable)


def _table(rule: _Sizing, load: SizedLoad, most: int) -> tuple[Counts, Counts, Counts]:
    """Counts from 0 to as many as may be of use, with speed and utilisation."""
    last = min(_FIRST_GUESS, max(1, most))
    while True:
        counts = np.arange(0, last + 1, dtype=np.float64)
        speed, busy = rule.answer(counts)
        speed = np.zeros_like(counts) if load.idle else np.minimum.accumulate(np.where(counts > 0, speed, np.inf))
        useful = min(max(1, most), 2 * wanted_count(counts, speed) + SPARE_COUNTS)
        if useful <= last:
            return counts, speed, busy
        last = min(max(useful, 4 * last), max(1, most))


def _chain(pool: PoolConfig, load: SizedLoad, rule: _Sizing, wanted: int) -> tuple[Limited, ...]:
    chain = tuple(Limited(wanted, Reason.SLA_UNREACHABLE, text) for text in rule.unreachable)
    if load.idle:
        return (*chain, Limited(wanted, Reason.SLA, "no load: nothing is needed"))
    rate = f"{load.req_per_s:.3g} requests/s of {load.isl_tokens:.0f}/{load.osl_tokens:.0f} tokens"
    if load.queued_requests > 0 and pool.role is not Role.DECODE:
        rate += f" and clear the {load.queued_requests:.0f} that wait"
    return (*chain, Limited(wanted, Reason.SLA, f"{wanted} {pool.pool} replicas serve {rate} in time"))


def _unreachable(what: str, alone_ms: float, target_ms: float) -> str:
    return f"{what} of a request alone on an engine is {alone_ms:.0f} ms, above the target of {target_ms:.0f} ms"
