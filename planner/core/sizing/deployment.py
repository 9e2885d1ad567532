"""What every deployment wants: learn from what was seen, size every pool, and find what holds the counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from planner.core.limits import bounds_in_force, external_changes, holds
from planner.core.limits.holds import Hold
from planner.core.performance import speeds_in_force
from planner.core.performance.corrections import DECODE, PREFILL, by_length, corrections, prompts_seen
from planner.core.performance.engine_model import engine
from planner.core.performance.speeds_in_force import Speeds
from planner.core.power.draw_feedback import with_curves
from planner.core.sizing import frontends, load_forecast, modes
from planner.core.sizing.options import PoolOptions
from planner.core.sizing.prefill_station import Known
from planner.core.sizing.sized_load import Corrections, SizedLoad
from planner.core.sizing.thresholds import PoolHistory, signal
from planner.core.slo import share_controller
from planner.core.state import DeploymentState, Learned, PlannerState, PoolState
from planner.domain.config import DeploymentConfig, PlannerConfig, SizingMode
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.observation import DeploymentObservation, Observation
from planner.domain.plan import Limited, SloReport
from planner.domain.pool import Replicas, Role
from planner.domain.units import TickClock


@dataclass(frozen=True, slots=True)
class SizedDeployment:
    """What a deployment wants. ``config`` has what is in force now; ``options`` lacks pools that cannot be sized.

    ``hold``: why counts stay, or which counts an operator set; None: the options decide.
    """

    config: DeploymentConfig
    state: DeploymentState
    seen: DeploymentObservation | None
    learned: load_forecast.LearnedLoad
    load: SizedLoad | None
    options: Mapping[PoolId, PoolOptions]
    current: Mapping[PoolId, int]
    hold: Hold | None
    notes: tuple[Limited, ...] = ()
    other_options: Mapping[PoolId, PoolOptions] = field(default_factory=dict)
    """Counts of the pools without GPUs."""
    slo: SloReport | None = None

    @property
    def corrections(self) -> Corrections:
        """The factors that sizing used."""
        return _factors(self.state.learned.corrections)


Sized: TypeAlias = Mapping[DeploymentId, SizedDeployment]


def size_deployments(
    state: PlannerState,
    observation: Observation,
    config: PlannerConfig,
    held: Mapping[SiteId, speeds_in_force.Held],
    clock: TickClock,
) -> dict[DeploymentId, SizedDeployment]:
    """What every deployment of ``config`` wants, with the bounds and power curves in force now.

    ``held``: the GPUs of each pool's living replicas, by site, for the sites whose GPUs are known.
    """
    learned = []
    for name, settings in config.deployments.items():
        before, power = state.deployments[name], state.power.get(settings.site)
        each = with_curves(settings, before)
        speeds = speeds_in_force.now(each, power, held.get(each.site, {}))
        aimed = {pool: goal.speed for pool, goal in before.pending.goals.items()}
        between = speeds_in_force.since(before.pending.speeds, speeds, each, power, aimed)
        before = replace(before, pending=replace(before.pending, speeds=speeds))
        learned.append(_learned(config, each, before, observation, between, clock))
    known = modes.answered(each.case for each in learned)
    return {name: _sized(each, known, clock) for name, each in zip(config.deployments, learned, strict=True)}


@dataclass(frozen=True, slots=True)
class _Learned:
    """One deployment after learning from what was seen: what its sizing starts from."""

    case: modes.Case
    state: DeploymentState
    load: load_forecast.LearnedLoad
    every: Mapping[PoolId, int]
    """The counts in force of all pools, those without GPUs included."""
    slo: SloReport | None


def _learned(
    settings: PlannerConfig,
    config: DeploymentConfig,
    state: DeploymentState,
    observation: Observation,
    speeds: Mapping[PoolId, Speeds],
    clock: TickClock,
) -> _Learned:
    """Learn from what was seen of one deployment, whose GPUs ran at ``speeds``."""
    seen, t_s = observation.deployments.get(config.deployment), clock.seen_s
    config = bounds_in_force.in_force(config, clock.utc_s)
    slo, report = share_controller.learn(config, state.learned.slo, seen, clock) or (None, None)
    config = share_controller.in_force(config, slo)
    model = engine(config.profile)
    learned = load_forecast.learn(settings, config, state.learned.forecasts, seen, t_s)
    every = {name: current_count(state, seen, config, name) for name in config.all_pools}
    current = {name: every[name] for name in config.pools}
    shape = load_forecast.actual_load(config, seen)
    prompts = prompts_seen(config, state.learned.prompts, seen, shape, current, speeds, t_s)
    factors = corrections(config, model, state, seen, shape, current, speeds, prompts)
    taught = replace(
        state.learned,
        forecasts=learned.bands,
        corrections=factors,
        prefill_factors=by_length(state.learned.prefill_factors, config, prompts, factors),
        prompts=prompts,
        edited_ticks=external_changes.edited_ticks(state, seen),
        pools=_remembered(state, config, seen, every, t_s),
        slo=slo,
    )
    interval_s = seen.interval_s if seen is not None else settings.load_interval_s
    load = None
    if learned.known:
        arriving = (
            learned.bands[load_forecast.SMOOTH].model.mean(0.0) if load_forecast.SMOOTH in learned.bands else None
        )
        ahead = (learned.rates, learned.held_rate, learned.growth, interval_s, arriving, learned.isl_cv2)
        load = load_forecast.sized_load(config, learned.forecasts, seen, *ahead)
    case = modes.Case(
        config=config,
        engine=model,
        load=load,
        ahead=learned.ahead,
        corrections=_factors(taught.corrections),
        seen=seen,
        current=current,
        past={name: _past(pool, t_s, interval_s) for name, pool in taught.pools.items()},
    )
    return _Learned(case, replace(state, learned=taught), learned, every, report)


def _sized(learned: _Learned, known: Known, clock: TickClock) -> SizedDeployment:
    """Size every pool of one deployment, and find what holds its counts."""
    case, state, every = learned.case, learned.state, learned.every
    config, seen, load = case.config, case.seen, case.load
    options = modes.size(case, known)
    if config.sizing in (SizingMode.LOAD, SizingMode.SLA_LOAD):
        state = replace(state, learned=replace(state.learned, pools=_signals(state.learned, config, seen)))
    held, state = holds.hold(config, state, learned.load.missing, options, every, clock)
    if config.sizing is SizingMode.CLASSIC:
        config = replace(config, max_gpus=None)  # the published cut is applied; its rounding may exceed the budget
    others = {name: frontends.options(pool, load, every[name]) for name, pool in config.other_pools.items()}
    notes = external_changes.notes(state, seen)
    return SizedDeployment(config, state, seen, learned.load, load, options, every, held, notes, others, learned.slo)


def current_count(
    state: DeploymentState, seen: DeploymentObservation | None, config: DeploymentConfig, name: PoolId
) -> int:
    """The count in force: the last decision's, else what was found running, else the floor."""
    published = state.flow.published.get(name)
    if published is not None:
        return published
    if seen is not None and name in seen.pools:
        return seen.pools[name].replicas.wanted
    return config.all_pools[name].min_replicas


def _factors(known: Mapping[str, float]) -> Corrections:
    return Corrections(known.get(PREFILL, 1.0), known.get(DECODE, 1.0))


def _remembered(
    state: DeploymentState,
    config: DeploymentConfig,
    seen: DeploymentObservation | None,
    current: Mapping[PoolId, int],
    t_s: float,
) -> Mapping[PoolId, PoolState]:
    """The counts found at the start are the first recommendation: no replica is removed before a window has passed."""
    pools = {}
    for name in config.all_pools:
        pool = state.learned.pools.get(name) or PoolState()
        if not pool.recommendations and seen is not None and name in seen.pools:
            found = ((t_s, current[name]),)
            pool = replace(pool, recommendations=found, lasting=found)
        running = seen.pools[name].replicas if seen is not None and name in seen.pools else Replicas()
        most = max(pool.most_seen, running.ready, current[name])
        pools[name] = pool if most == pool.most_seen else replace(pool, most_seen=most)
    return pools


def _signals(
    learned: Learned, config: DeploymentConfig, seen: DeploymentObservation | None
) -> Mapping[PoolId, PoolState]:
    """The queues to compare with at the next tick."""
    if seen is None:
        return learned.pools
    queues = {n: signal(Role.PREFILL, seen.pools.get(n)) for n, p in config.pools.items() if p.role is Role.PREFILL}
    return {name: replace(pool, queued=queues.get(name)) for name, pool in learned.pools.items()}


def _past(pool: PoolState, t_s: float, interval_s: float) -> PoolHistory:
    grown = max((at for at, change in pool.events if change > 0), default=None)
    since = float("inf") if grown is None else (t_s - grown) / max(1e-9, interval_s)
    return PoolHistory(pool.queued, since)
