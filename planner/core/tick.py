"""One deployment's tick up to what it wants: learn, size, and say what holds it. Publishes nothing, grants nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.core.perf.engine import engine
from planner.core.sizing import observe, sla
from planner.core.sizing.load import SizedLoad
from planner.core.sizing.options import PoolOptions
from planner.core.state import DeploymentState, PoolState
from planner.domain.config import DeploymentConfig, OperationMode, PlannerConfig
from planner.domain.ids import PoolId
from planner.domain.observation import DeploymentObservation
from planner.domain.plan import Limited
from planner.domain.pool import Replicas
from planner.domain.reasons import Reason


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a deployment wants. ``options`` lacks pools that could not be sized; ``hold`` says why counts stay."""

    config: DeploymentConfig
    state: DeploymentState
    seen: DeploymentObservation | None
    learned: observe.Learned
    load: SizedLoad | None
    options: Mapping[PoolId, PoolOptions]
    current: Mapping[PoolId, int]
    hold: Limited | None


def tick(
    settings: PlannerConfig,
    config: DeploymentConfig,
    state: DeploymentState,
    seen: DeploymentObservation | None,
    now_s: float,
) -> Ticked:
    """Learn from ``seen`` and size every pool."""
    t_s = settings.load_now_s(now_s)
    learned = observe.learn(settings, config, state.forecasts, seen, t_s)
    current = {name: current_count(state, seen, config, name) for name in config.pools}
    state = replace(state, forecasts=learned.bands, pools=_remember(state, config, seen, current))
    if not learned.missing:
        state = replace(state, metrics_at_s=t_s)
    load = observe.sized_load(config, learned.forecasts, seen) if learned.known else None
    options = _options(config, load) if load is not None else {}
    hold = _hold(config, state, learned, options, t_s)
    return Ticked(config, replace(state, sized_at_s=t_s), seen, learned, load, options, current, hold)


def current_count(
    state: DeploymentState, seen: DeploymentObservation | None, config: DeploymentConfig, name: PoolId
) -> int:
    """The count in force: the last decision's, else what was found running, else the floor."""
    pool = state.pools.get(name)
    if pool is not None and pool.decided is not None:
        return pool.decided
    if seen is not None and name in seen.pools:
        return seen.pools[name].replicas.wanted
    return config.pools[name].min_replicas


def _remember(
    state: DeploymentState,
    config: DeploymentConfig,
    seen: DeploymentObservation | None,
    current: Mapping[PoolId, int],
) -> Mapping[PoolId, PoolState]:
    pools = {}
    for name in config.pools:
        pool = state.pools.get(name) or PoolState()
        running = seen.pools[name].replicas if seen is not None and name in seen.pools else Replicas()
        pools[name] = replace(pool, most_seen=max(pool.most_seen, running.ready, current[name]))
    return pools


def _options(config: DeploymentConfig, load: SizedLoad) -> Mapping[PoolId, PoolOptions]:
    """Every pool's options. Pools of one deployment leave zero together or not at all."""
    model = engine(config.profile)
    found = {}
    for name, pool in config.pools.items():
        options = sla.options(config, pool, model, load, 1.0, 1.0, pool.max_replicas)
        if options is not None:
            found[name] = options
    return found


def _hold(
    config: DeploymentConfig,
    state: DeploymentState,
    learned: observe.Learned,
    options: Mapping[PoolId, PoolOptions],
    t_s: float,
) -> Limited | None:
    if config.mode is OperationMode.PAUSED or state.paused:
        return Limited(0, Reason.PAUSED, "the deployment is paused")
    if state.pinned is not None:
        return Limited(0, Reason.PINNED, "an operator pinned the replicas")
    if learned.missing:
        names = ", ".join(f"{name} ({why})" for name, why in learned.missing.items())
        return Limited(0, Reason.METRICS_MISSING, f"held: no {names}")
    if len(options) < len(config.pools):
        lacking = ", ".join(sorted(set(config.pools) - set(options)))
        return Limited(0, Reason.MODEL_NOT_READY, f"held: the profile has no model for {lacking}")
    return None
