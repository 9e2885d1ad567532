"""Mode ``sla``: the least capacity that meets the TTFT quantile and the mean ITL, queues included."""

from __future__ import annotations

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

_Answer: TypeAlias = tuple[Counts, Counts, tuple[Limited, ...]]
"""Required speed, utilisation, and what was found unreachable."""


def options(
    config: DeploymentConfig, pool: PoolConfig, engine: Engine, load: SizedLoad, ttft_x: float, itl_x: float, most: int
) -> PoolOptions | None:
    """Every useful count of ``pool`` up to ``most`` with the speed it needs; None where the profile lacks the phase."""
    first = _FIRST_GUESS
    while True:
        last = max(1, min(first, most))
        found = _options(config, pool, engine, load, ttft_x, itl_x, last)
        if found is None or found.wanted * 2 + SPARE_COUNTS <= last or last >= most:
            return found
        first = max(4 * first, 2 * min(found.wanted, most) + SPARE_COUNTS)


def _options(
    config: DeploymentConfig, pool: PoolConfig, engine: Engine, load: SizedLoad, ttft_x: float, itl_x: float, last: int
) -> PoolOptions | None:
    counts = np.arange(0, last + 1, dtype=np.float64)
    if pool.role is Role.PREFILL and engine.prefill is not None:
        speed, busy, chain = _prefill(config, engine.prefill, load, counts, ttft_x)
    elif pool.role is Role.DECODE and engine.decode is not None:
        speed, busy, chain = _decode(config, engine.decode, load, counts, itl_x)
    elif pool.role is Role.AGGREGATED and engine.prefill is not None and engine.decode is not None:
        speed, busy, chain = _shared(
            _prefill(config, engine.prefill, load, counts, ttft_x), _decode(config, engine.decode, load, counts, itl_x)
        )
    else:
        return None
    return _table(pool.role, load, counts, speed, busy, chain)


def _prefill(
    config: DeploymentConfig, model: PrefillModel, load: SizedLoad, counts: Counts, correction: float
) -> _Answer:
    queue = prefill.station(model, load, config.ttft_quantile, correction)
    speed = prefill.required_speed(queue, load, counts, config.ttft_ms, config.drain_backlog_s)
    chain: tuple[Limited, ...] = ()
    if not prefill.reachable(queue, config.ttft_ms):
        chain = (_unreachable("TTFT", queue.own_ms, config.ttft_ms),)
    return speed, np.minimum(1.0, queue.utilisation(counts)), chain


def _decode(
    config: DeploymentConfig, model: DecodeModel, load: SizedLoad, counts: Counts, correction: float
) -> _Answer:
    speed = decode.required_speed(model, load, counts, config.itl_ms, correction)
    in_flight = decode.steps_per_ms(load) * decode.step_target_ms(model, load, config.itl_ms, correction)
    busy = -np.expm1(-in_flight / np.maximum(counts, 1e-9))
    chain: tuple[Limited, ...] = ()
    if not decode.reachable(model, load, config.itl_ms, correction):
        alone = model.itl_ms(1.0, load.context_tokens) * correction
        chain = (_unreachable("ITL", alone, config.itl_ms),)
    return speed, busy, chain


def _shared(for_both: _Answer, rest: _Answer) -> _Answer:
    """Both phases on one engine: the time that prefill takes is lost to decode."""
    for_prefill, prefill_busy, chain = for_both
    for_decode, decode_busy, more = rest
    speed = np.maximum(for_prefill, for_decode + prefill_busy)
    return speed, np.minimum(1.0, prefill_busy + decode_busy), chain + more


def _table(
    role: Role, load: SizedLoad, counts: Counts, speed: Counts, busy: Counts, chain: tuple[Limited, ...]
) -> PoolOptions:
    speed = np.where(counts > 0, speed, 0.0 if load.idle else np.inf)
    speed = np.minimum.accumulate(speed) if not load.idle else np.zeros_like(speed)
    wanted = wanted_count(counts, speed)
    last = min(len(counts), max(2 * wanted + SPARE_COUNTS, 2)) if wanted < len(counts) else len(counts)
    return PoolOptions(
        role=role,
        counts=tuple(int(count) for count in counts[:last]),
        speed=tuple(speed[:last].tolist()),
        utilisation=tuple(np.where(counts > 0, busy, 0.0)[:last].tolist()),
        wanted=wanted,
        chain=chain,
    )


def _unreachable(what: str, alone_ms: float, target_ms: float) -> Limited:
    sentence = f"{what} of a request alone on an engine is {alone_ms:.0f} ms, above the target of {target_ms:.0f} ms"
    return Limited(0, Reason.SLA_UNREACHABLE, sentence)
