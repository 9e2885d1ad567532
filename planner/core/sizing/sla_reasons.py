"""The reasons behind a count of mode ``sla``: unreachable targets, extrapolation, load, KV capacity, backlog."""

from __future__ import annotations

import numpy as np

from planner.core.performance.engine_model import Engine
from planner.core.sizing import decode_station, prefill_station
from planner.core.sizing.sized_load import Corrections, SizedLoad
from planner.domain.config import DeploymentConfig, PoolConfig
from planner.domain.plan import Limited
from planner.domain.pool import Role
from planner.domain.reasons import ReasonCode


def chain(
    config: DeploymentConfig, pool: PoolConfig, engine: Engine, load: SizedLoad, corrections: Corrections, wanted: int
) -> tuple[Limited, ...]:
    """The chain of reasons; its last link carries the desired count."""
    if load.idle:
        return (Limited(wanted, ReasonCode.SLA, "no load: nothing is needed"),)
    links = [
        Limited(wanted, ReasonCode.SLA_UNREACHABLE, text)
        for text in _unreachable(config, pool, engine, load, corrections)
    ]
    links += [Limited(wanted, ReasonCode.EXTRAPOLATED, text) for text in _extrapolated(pool, engine, load)]
    rate = f"{load.req_per_s:.3g} requests/s of {load.isl_tokens:.0f}/{load.osl_tokens:.0f} tokens"
    if _holds_sequences(config, pool, engine, load, corrections, wanted):
        text = f"{wanted} {pool.pool} replicas hold the sequences of {rate} in their KV caches"
        return (*links, Limited(wanted, ReasonCode.KV_CAPACITY, text))
    return (*links, Limited(wanted, ReasonCode.SLA, f"{wanted} {pool.pool} replicas serve {rate} in time"))


def backlog(
    config: DeploymentConfig, pool: PoolConfig, flow: tuple[Limited, ...], waiting: float, wanted: int
) -> tuple[Limited, ...]:
    """The chain for the arriving load, and the replicas that requests add which will wait when new ones serve."""
    if wanted <= flow[-1].value:
        return flow
    what = "take the answers of" if pool.role is Role.DECODE else "clear"
    within = f"within {config.drain_backlog_s:.0f} s"
    text = f"{wanted} {what} the {waiting:.0f} that will wait when new replicas serve, {within}"
    return (*flow, Limited(wanted, ReasonCode.BACKLOG, text))


def _unreachable(
    config: DeploymentConfig, pool: PoolConfig, engine: Engine, load: SizedLoad, corrections: Corrections
) -> list[str]:
    found = []
    if pool.role is not Role.DECODE and engine.prefill is not None:
        queue = prefill_station.station(engine.prefill, load, config.ttft_quantile, corrections.prefill)
        if not prefill_station.reachable(queue, config.ttft_ms):
            found.append(_too_slow("TTFT", queue.own_ms, config.ttft_ms))
    if pool.role is not Role.PREFILL and engine.decode is not None:
        model = engine.decode
        if not decode_station.reachable(model, load, config.itl_ms, corrections.decode):
            alone = model.itl_ms(1.0, load.context_tokens) * corrections.decode / max(1.0, load.accept_length)
            found.append(_too_slow("ITL", alone, config.itl_ms))
    return found


def _too_slow(what: str, alone_ms: float, target_ms: float) -> str:
    return f"{what} of a request alone on an engine is {alone_ms:.0f} ms, above the target of {target_ms:.0f} ms"


def _extrapolated(pool: PoolConfig, engine: Engine, load: SizedLoad) -> list[str]:
    found = []
    if pool.role is not Role.DECODE and engine.prefill is not None and not engine.prefill.covers(load.prefill_tokens):
        first, last = engine.prefill.isl_tokens[0], engine.prefill.isl_tokens[-1]
        found.append(
            f"prompts of {load.prefill_tokens:.0f} tokens; the profile was measured at {first:.0f} to {last:.0f}"
        )
    if pool.role is not Role.PREFILL and engine.decode is not None and not engine.decode.covers(load.context_tokens):
        last = engine.decode.largest_context_tokens
        found.append(f"contexts of {load.context_tokens:.0f} tokens; the profile was measured up to {last:.0f}")
    return found


def _holds_sequences(
    config: DeploymentConfig, pool: PoolConfig, engine: Engine, load: SizedLoad, corrections: Corrections, wanted: int
) -> bool:
    """Whether one replica fewer would meet the ITL target, but lack KV capacity."""
    if pool.role is not Role.DECODE or engine.decode is None or wanted <= 1:
        return False
    fewer = np.array([wanted - 1.0])
    latency = decode_station.latency_speed(engine.decode, load, fewer, config.itl_ms, corrections.decode)
    return bool(latency[0] <= 1.0)
