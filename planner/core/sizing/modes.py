"""The sizing modes: ``sla``, ``classic``, ``load``, and ``sla+load``, which takes the larger count of the two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from planner.core.performance.engine_model import Engine
from planner.core.sizing import classic, sla, thresholds
from planner.core.sizing.late_prompts import lateness
from planner.core.sizing.options import PoolOptions, at_least, exactly
from planner.core.sizing.prefill_station import Known
from planner.core.sizing.sized_load import Corrections, SizedLoad
from planner.core.sizing.thresholds import PoolHistory
from planner.domain.config import DeploymentConfig, PoolConfig, SizingMode
from planner.domain.ids import PoolId
from planner.domain.observation import DeploymentObservation
from planner.domain.plan import Limited
from planner.domain.pool import Role
from planner.domain.reasons import ReasonCode


@dataclass(frozen=True, slots=True)
class Case:
    """The inputs of a sizing mode. ``ahead``: the point forecast; ``load``: the load to size for; None: unknown."""

    config: DeploymentConfig
    engine: Engine
    load: SizedLoad | None
    ahead: classic.Interval | None
    corrections: Corrections
    seen: DeploymentObservation | None
    current: Mapping[PoolId, int]
    past: Mapping[PoolId, PoolHistory]


def answered(cases: Iterable[Case]) -> Known:
    """What these deployments ask of the transient model, where they are so many that one pass for all of them pays."""
    prompts = []
    for case in cases:
        if case.load is not None and case.config.sizing in (SizingMode.SLA, SizingMode.SLA_LOAD):
            prompts += sla.asked(case.config, case.engine, case.load, case.corrections)
    return lateness.lines(prompts)


def size(case: Case, known: Known) -> dict[PoolId, PoolOptions]:
    """Every pool's options; a pool that cannot be sized now is left out. ``known``: what ``answered`` found."""
    found = {}
    for name, pool in case.config.pools.items():
        options = _pool(case, pool, known)
        if options is not None:
            found[name] = options
    if case.config.sizing is SizingMode.CLASSIC:
        return _classic_budget(case.config, found)
    return found


def _pool(case: Case, pool: PoolConfig, known: Known) -> PoolOptions | None:
    mode = case.config.sizing
    if mode is SizingMode.CLASSIC:
        return _classic(case, pool)
    if mode is SizingMode.LOAD:
        return _thresholds(case, pool)
    if case.load is None:
        return None
    by_sla = sla.options(case.config, pool, case.engine, case.load, case.corrections, known, case.current[pool.pool])
    if mode is SizingMode.SLA or by_sla is None:
        return by_sla
    by_load = _thresholds(case, pool)
    return by_sla if by_load is None else at_least(by_load, by_sla)


def _thresholds(case: Case, pool: PoolConfig) -> PoolOptions | None:
    seen = case.seen.pools.get(pool.pool) if case.seen is not None else None
    value = thresholds.signal(pool.role, seen)
    if value is None:
        return None
    past = case.past.get(pool.pool) or PoolHistory()
    return exactly(thresholds.step(pool.role, case.config.load, value, case.current[pool.pool], past))


def _classic(case: Case, pool: PoolConfig) -> PoolOptions | None:
    prefill, decode, ahead = *case.config.profile.as_measured, case.ahead
    if ahead is None:
        return None
    try:
        if pool.role is Role.PREFILL and prefill is not None:
            wanted = classic.prefill_replicas(prefill, ahead, case.corrections.prefill, pool.gpus_per_replica)
        elif pool.role is Role.DECODE and decode is not None:
            wanted = classic.decode_replicas(
                decode, ahead, case.config.itl_ms, case.corrections.decode, pool.gpus_per_replica
            )
        else:
            return None
    except (ArithmeticError, ValueError):
        return None  # the published planner keeps its counts where its formula has no value
    rate = f"{ahead.requests:.4g} requests of {ahead.isl_tokens:.0f}/{ahead.osl_tokens:.0f} tokens"
    text = f"{wanted} {pool.pool} replicas for {rate} in {ahead.interval_s:.0f} s, by the classic formula"
    return exactly((Limited(max(wanted, pool.min_replicas), ReasonCode.CLASSIC, text),))


def _classic_budget(config: DeploymentConfig, found: dict[PoolId, PoolOptions]) -> dict[PoolId, PoolOptions]:
    """The published proportional cut of prefill and decode to the GPU budget."""
    by_role = {config.pools[name].role: name for name in found}
    if set(by_role) != {Role.PREFILL, Role.DECODE}:
        return found
    names = (by_role[Role.PREFILL], by_role[Role.DECODE])
    p, d = (config.pools[name] for name in names)
    counts = classic.within_budget(
        found[names[0]].wanted,
        found[names[1]].wanted,
        p.gpus_per_replica,
        d.gpus_per_replica,
        config.max_gpus,
        (p.min_replicas, d.min_replicas),
    )
    cut = dict(found)
    for name, count in zip(names, counts, strict=True):
        if count != found[name].wanted:
            text = f"cut in proportion to the budget of {config.max_gpus} GPUs"
            cut[name] = exactly((*found[name].chain, Limited(count, ReasonCode.GPU_BUDGET, text)))
    return cut
