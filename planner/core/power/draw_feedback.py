"""Compares each pool's measured draw with the power model, updates its P_u, and reports both figures to the operator.

Owns the choice of readings, and the estimate of how busy and how full the engines were. Must never touch the ledger:
what is learned changes what the optimiser asks for, never what a GPU is charged.

Cheap by sampling: a few GPUs of a pool at each tick, of which the median counts. Uncertain where it relies on means:
the batch is the pool's running requests over its replicas; a decode engine is busy with the probability that a Poisson
count of that mean is above zero; a prefill engine by rate times profile, and only while prompts wait for every replica,
because a profile alone can be off by half; an aggregated engine mixes both phases and is learned as that mixture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from planner.core.performance.corrections import PREFILL
from planner.core.performance.engine_model import engine
from planner.core.placement import Holder
from planner.core.power.curve import draw_mw, speed
from planner.core.power.p_u_estimator import BUSY, Drawn, Reading, Report, batch_bucket
from planner.core.power.site_state import PowerState
from planner.core.sizing.sized_load import LARGEST_HIT_RATE
from planner.core.state import DeploymentState, PlannerState
from planner.domain.config import DeploymentConfig, PlannerConfig, PoolConfig
from planner.domain.ids import GpuId, PoolId, SiteId
from planner.domain.observation import DeploymentObservation, Observation, PoolObservation
from planner.domain.pool import Role
from planner.domain.power import PowerCurve, PowerFigures
from planner.domain.reading import value_or_none
from planner.domain.units import TickClock

SAMPLED = 5
"""Maximum number of a pool's GPUs that are sampled in a tick."""
SAME_BATCH = 1.5
"""A batch within this factor of the last tick's counts as unchanged."""
SMOOTHING = 0.2
"""Weight of one tick in the smoothed draws."""
NOTHING = Drawn()


def with_curves(config: DeploymentConfig, state: DeploymentState) -> DeploymentConfig:
    """The deployment's configuration with the learned power curves."""
    pools = {}
    for name, pool in config.pools.items():
        drawn = state.learned.draws.get(name)
        law = pool.curve if drawn is None or not pool.learn_power else drawn.learned.curve(drawn.bucket, pool.curve)
        if law is not pool.curve:
            pools[name] = replace(pool, curve=law)
    return replace(config, pools={**config.pools, **pools}) if pools else config


def figures(config: DeploymentConfig, state: DeploymentState) -> Mapping[PoolId, PowerFigures]:
    """Measured draw and learned P_u by pool, for the pools that were sampled."""
    return {
        name: _figures(config.pools[name], known) for name, known in state.learned.draws.items() if name in config.pools
    }


def _figures(pool: PoolConfig, known: Drawn) -> PowerFigures:
    estimate = known.learned.estimates.get(known.bucket)
    return PowerFigures(
        assumed_p_u_mw=pool.curve.p_u_mw,
        p_u_mw=known.learned.p_u_mw(known.bucket, pool.curve) if pool.learn_power else pool.curve.p_u_mw,
        batch=known.batch,
        samples=estimate.samples if estimate is not None else 0,
        bounds=estimate.bounds if estimate is not None else 0,
        drawn_mw=known.measured_mw,
        expected_mw=known.expected_mw,
    )


def measure_draws(
    state: PlannerState,
    observation: Observation,
    config: PlannerConfig,
    held: Mapping[SiteId, Mapping[Holder, Sequence[GpuId]]],
    clock: TickClock,
) -> PlannerState:
    """Compare every pool's measured draw with the power model, and update its P_u estimate.

    ``held``: the GPUs of each pool's living replicas, by site, for the sites whose GPUs are known.
    """
    if not held:
        return state
    deployments = dict(state.deployments)
    for name, settings in config.deployments.items():
        if (site := settings.site) in held:
            seen, power = observation.deployments.get(name), state.power[site]
            deployments[name] = _measured(deployments[name], settings, seen, power, held[site], clock.now_s)
    return replace(state, deployments=deployments)


def _measured(
    state: DeploymentState,
    config: DeploymentConfig,
    seen: DeploymentObservation | None,
    power: PowerState,
    held: Mapping[Holder, Sequence[GpuId]],
    now_s: float,
) -> DeploymentState:
    """Update each pool's estimate from its GPUs' telemetry. Pools without telemetry are unchanged."""
    if seen is None:
        return state
    drawn = dict(state.learned.draws)
    for name, pool in config.pools.items():
        reported, gpus = seen.pools.get(name), held.get((config.deployment, name), ())
        if reported is None or not _at_rest(reported, len(gpus), pool):
            continue
        batch = _batch(pool, reported)
        if batch is None:
            continue
        known = drawn.get(name) or NOTHING
        rows, reports = _rows(gpus, power, known.reports)
        since_s = _since(known, batch, now_s)
        busy = _full_speed_share(config, state, pool, seen, reported)
        drawn[name] = _taught(known, pool, reported, DrawSample(rows, reports, batch, since_s, busy, now_s))
    return replace(state, learned=replace(state.learned, draws=drawn))


def _at_rest(reported: PoolObservation, gpus: int, pool: PoolConfig) -> bool:
    """Whether all replicas serve: the draw of one that loads weights or drains carries no information about P_u."""
    ready = reported.replicas.ready
    return ready > 0 and not reported.replicas.starting and gpus == ready * pool.gpus_per_replica


def _batch(pool: PoolConfig, reported: PoolObservation) -> float | None:
    """Sequences that each replica runs. Prefill engines are always about the same chunk of tokens."""
    if pool.role is Role.PREFILL:
        return 1.0
    running = value_or_none(reported.running_requests)
    return None if running is None else running / reported.replicas.ready


def _since(known: Drawn, batch: float, now_s: float) -> float:
    """Since when the batch is unchanged; one that changed since the last tick may have done so just now."""
    now, before = max(1.0, batch), max(1.0, known.batch)
    same = now <= SAME_BATCH * before and before <= SAME_BATCH * now
    return known.since_s if same else now_s


class GpuRow(NamedTuple):
    """One GPU's figures; sorts by draw. ``raised_s``: when this planner last raised a cap on its node."""

    draw_mw: int
    cap_mw: int
    raised_s: float


def _rows(gpus: Sequence[GpuId], power: PowerState, known: frozenset[Report]) -> tuple[list[GpuRow], frozenset[Report]]:
    """Up to ``SAMPLED`` GPUs spread over the pool, by rising draw, and the reports that they come from.

    Uses only reports that are not ``known``: a repeated last report of a silent node is not new evidence.
    """
    stride = -(-len(gpus) // SAMPLED)
    found: list[GpuRow] = []
    reports: set[Report] = set()
    for name in gpus[::stride]:
        page = power.nodes[power.where[name]]
        if page.seen is None:
            continue
        report = (page.node, page.seen.boot, page.seen.clock_s)
        reports.add(report)
        gpu = page.seen.gpus.get(name)
        if gpu is None or gpu.draw_mw is None or not gpu.enforced_mw:
            continue
        if report[2] is None or report not in known:
            found.append(GpuRow(gpu.draw_mw, gpu.enforced_mw, page.raised_s))
    return sorted(found), frozenset(reports)


def _full_speed_share(
    config: DeploymentConfig,
    state: DeploymentState,
    pool: PoolConfig,
    seen: DeploymentObservation,
    reported: PoolObservation,
) -> float | None:
    """Share of time for which an engine at full speed would be busy with the observed work; None if unknown."""
    if pool.role is not Role.PREFILL:
        running = value_or_none(reported.running_requests)
        return None if running is None else 1.0 - math.exp(-running / reported.replicas.ready)
    model = engine(config.profile).prefill
    requests, isl = value_or_none(seen.requests), value_or_none(seen.isl_tokens)
    if model is None or requests is None or isl is None:
        return None
    fresh = isl * (1.0 - min(LARGEST_HIT_RATE, value_or_none(seen.kv_hit_rate) or 0.0))
    cost_s = model.cost_ms(max(1.0, fresh)) * state.learned.corrections.get(PREFILL, 1.0) / 1000.0
    return requests / max(1e-9, seen.interval_s) * cost_s / reported.replicas.ready


class DrawSample(NamedTuple):
    """One tick's sample of a pool. ``busy``: share at full speed; ``since_s``: since when the batch is unchanged."""

    rows: list[GpuRow]
    reports: frozenset[Report]
    batch: float
    since_s: float
    busy: float | None
    now_s: float


def _taught(known: Drawn, pool: PoolConfig, reported: PoolObservation, look: DrawSample) -> Drawn:
    bucket, learned, shown = batch_bucket(look.batch), known.learned, (known.measured_mw, known.expected_mw)
    if look.rows:
        row = look.rows[len(look.rows) // 2]
        law = learned.curve(bucket, pool.curve)
        share = None if look.busy is None else _busy(pool, look.busy, law, row.cap_mw)
        if share is not None:
            mean = sum([one.draw_mw for one in look.rows]) / len(look.rows)
            shown = _smoothed(shown[0], mean), _smoothed(shown[1], draw_mw(law, row.cap_mw, share))
        if pool.learn_power:
            learned = learned.observe(bucket, pool.curve, _reading(pool, reported, look, share), look.now_s)
    return Drawn(learned, look.batch, bucket, look.since_s, *shown, look.reports)


def _reading(pool: PoolConfig, reported: PoolObservation, look: DrawSample, share: float | None) -> Reading:
    """The median GPU's reading, weighted by the number of samples, if all engines are surely busy."""
    rows = look.rows
    row, weight = rows[len(rows) // 2], len(rows)
    waiting = (
        pool.role is not Role.PREFILL or (value_or_none(reported.queued_requests) or 0.0) >= reported.replicas.ready
    )
    if share is None or share < BUSY or not waiting:
        # With pauses the median engine may be idle; the GPU with the highest draw is the one that may be at its cap.
        row, share, weight = rows[-1], 0.0, 1
    return Reading(row.draw_mw, row.cap_mw, share, look.now_s - max(look.since_s, row.raised_s), weight)


def _busy(pool: PoolConfig, at_full_speed: float, law: PowerCurve, cap_mw: int) -> float:
    """A capped prefill engine is busy for longer; a decode engine's observed batch already includes that."""
    if pool.role is not Role.PREFILL:
        return at_full_speed
    return min(1.0, at_full_speed / max(speed(law, cap_mw), 1e-3))


def _smoothed(known: float | None, now: float) -> float:
    return now if known is None else known + SMOOTHING * (now - known)
