"""The whole planner as two pure functions: ``step`` at every tick, ``react`` between ticks.

Owns the order of things: what was seen, what is wanted, what limits it, what is granted, what goes out. Reads no clock
and touches no wire, so service, simulation, replay and tests all decide alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from planner.core.allocation import site as powering
from planner.core.forecast import registry
from planner.core.forecast.band import Band
from planner.core.forecast.warm import warmed
from planner.core.limits import hpa_behavior, readiness
from planner.core.limits.pipeline import LimitedCounts, limit_counts, shortened
from planner.core.power import site_ledger as ledger
from planner.core.power.draw_feedback import figures, with_curves, with_telemetry
from planner.core.publishable import Aim, decide
from planner.core.record import deployment_plan
from planner.core.sizing import load_forecast
from planner.core.sizing.deployment import SizedDeployment, size_deployment
from planner.core.state import DeploymentState, LastDecision, PlannerState, PoolGoal, PoolState
from planner.domain.config import DeploymentConfig, OperationMode, PlannerConfig
from planner.domain.demand import Allocation
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.observation import Observation, StoredCaps
from planner.domain.plan import DeploymentPlan, Limited, Plan, PowerDecision, ScalingDecision, SitePlan
from planner.domain.reasons import ReasonCode

Goals = Mapping[PoolId, PoolGoal]


def initial_state(
    config: PlannerConfig,
    epoch: int,
    now_s: float,
    last_decisions: Iterable[LastDecision] = (),
    stored_caps: Iterable[StoredCaps] | None = None,
    *,
    doubted: bool = False,
) -> PlannerState:
    """What a planner knows when it takes the lead: what the streams hold, and nothing else.

    ``stored_caps``: the last power decision of every node, read AFTER leadership was won; empty: there was never one;
    None: not read, so nothing rises until every GPU has answered and a lease has passed. ``doubted``: they may come
    from an old copy of the bus.
    """
    known = {last.deployment: last for last in last_decisions}
    pages = None if stored_caps is None else tuple(stored_caps)
    return PlannerState(
        epoch=epoch,
        started_s=now_s,
        deployments={
            name: replace(_resumed(known.get(name)), forecasts=_warm(config, deployment, now_s))
            for name, deployment in config.deployments.items()
        },
        power={name: ledger.initial(site, epoch, now_s, pages, doubted=doubted) for name, site in config.sites.items()},
    )


def _warm(config: PlannerConfig, deployment: DeploymentConfig, now_s: float) -> Mapping[str, Band]:
    """Forecasts that have seen the deployment's recorded trace; none where it has none."""
    if not deployment.history:
        return {}
    interval_s = config.interval_s * config.load_time_scale
    ahead_s = load_forecast.horizon_s(deployment, interval_s)
    make = partial(registry.make, deployment.predictor, deployment.forecast_level, ahead_s, config.predictors)
    return warmed(
        {name: make() for name in load_forecast.QUANTITIES}, deployment.history, interval_s, config.load_now_s(now_s)
    )


def _resumed(last: LastDecision | None) -> DeploymentState:
    if last is None:
        return DeploymentState()
    return DeploymentState(
        decision_id=last.decision_id,
        scaled_decision_id=last.scaled_decision_id,
        decided_at_s=last.decided_at_s,
        pools={name: PoolState(decided=count) for name, count in last.replicas.items()},
    )


def step(
    state: PlannerState,
    observation: Observation,
    config: PlannerConfig,
    now_s: float,
    seen_s: float | None = None,
) -> tuple[PlannerState, Plan]:
    """One tick: the next state and everything that was decided, with its reasons.

    ``seen_s``: when the deployments were observed, where that is earlier than now: a tick that is decided late.
    """
    state = _absorb(state, observation, config, now_s)
    seen_s = now_s if seen_s is None else seen_s
    t_s, out_s = config.load_now_s(seen_s), config.load_now_s(now_s)
    sites = powering.sites(state, config, now_s)
    state = _with_draws(state, observation, config, sites, now_s)
    in_force = {name: with_curves(known, state.deployments[name]) for name, known in config.deployments.items()}
    ticks = {
        name: size_deployment(
            config, in_force[name], state.deployments[name], observation.deployments.get(name), seen_s
        )
        for name in config.deployments
    }
    interval_s = config.interval_s * config.load_time_scale
    aims = _aims(config, ticks, sites, now_s, t_s)
    state = replace(state, deployments={name: _aimed(ticks[name], aims[name], t_s, interval_s) for name in ticks})
    state, power, reserved = powering.advance(state, config, now_s)
    deployments, plans, orders = {}, {}, []
    for name, ticked in ticks.items():
        aim = Aim(ticked.current, aims[name].granted.counts)
        known, order, counts = decide(ticked.config, state.deployments[name], aim, reserved.get(name), now_s, out_s)
        deployments[name] = known
        power_figures = figures(config.deployments[name], known)
        plans[name] = deployment_plan(ticked, aims[name].granted, known, counts, aims[name].shortfall, power_figures)
        orders += [order] if order is not None else []
    state = replace(state, deployments=deployments)
    return state, _plan(state, config, now_s, power, orders, plans)


def react(
    state: PlannerState, observation: Observation, config: PlannerConfig, now_s: float
) -> tuple[PlannerState, Plan]:
    """Between ticks: acknowledgements, orders, budgets, settled watts, leases. Sizes nothing."""
    state = _absorb(state, observation, config, now_s)
    state, power, reserved = powering.advance(state, config, now_s)
    t_s = config.load_now_s(now_s)
    deployments, orders = dict(state.deployments), []
    for name, known in state.deployments.items():
        if name not in reserved or known.pending_since_s is None or known.paused or not known.goals:
            continue
        current = {pool: s.decided for pool, s in known.pools.items() if s.decided is not None}
        goal = {pool: g.replicas for pool, g in known.goals.items()}
        if current.keys() != goal.keys():
            current = {pool: current.get(pool, known.running.get(pool, count)) for pool, count in goal.items()}
        aim = Aim(current, goal)
        deployments[name], order, _ = decide(config.deployments[name], known, aim, reserved[name], now_s, t_s)
        orders += [order] if order is not None else []
    state = replace(state, deployments=deployments)
    return state, _plan(state, config, now_s, power, orders, {})


def _absorb(state: PlannerState, observation: Observation, config: PlannerConfig, now_s: float) -> PlannerState:
    deployments = {}
    for name in config.deployments:
        known = state.deployments.get(name) or DeploymentState()
        known = readiness.acknowledged(known, observation.scaling_acks.get(name))
        if observation.deployment_commands:
            known = readiness.ordered(known, tuple(o for o in observation.deployment_commands if o.deployment == name))
        deployments[name] = known
    return powering.absorb(replace(state, deployments=deployments), observation, config, now_s)


@dataclass(frozen=True, slots=True)
class _Aimed:
    granted: LimitedCounts
    goals: Goals
    shortfall: float


def _with_draws(
    state: PlannerState,
    observation: Observation,
    config: PlannerConfig,
    sites: Mapping[SiteId, powering.SharedSite],
    now_s: float,
) -> PlannerState:
    """What every pool's GPUs draw, put beside the law."""
    deployments = dict(state.deployments)
    for name, site in sites.items():
        power = state.power[name]
        for member in site.deployments:
            seen = observation.deployments.get(member)
            known, settings = deployments[member], config.deployments[member]
            deployments[member] = with_telemetry(known, settings, seen, power, site.held, now_s)
    return replace(state, deployments=deployments)


def _aims(
    config: PlannerConfig,
    ticks: Mapping[DeploymentId, SizedDeployment],
    sites: Mapping[SiteId, powering.SharedSite],
    now_s: float,
    t_s: float,
) -> dict[DeploymentId, _Aimed]:
    """Optimise freely, limit, and where limits moved a count find the best caps for the counts that stay."""
    found: dict[DeploymentId, _Aimed] = {}
    for site in sites.values():
        free = site.allocate(ticks, {})
        granted = {name: limit_counts(ticks[name], free, now_s, t_s) for name in site.deployments}
        final = free if _same(free, granted) else site.allocate(ticks, {n: g.counts for n, g in granted.items()})
        for name, given in granted.items():
            given = shortened(given, final, ticks[name].config)
            found[name] = _Aimed(given, _goals(ticks[name], final, given), final.shortfall.get(name, 0.0))
    for name, ticked in ticks.items():
        if name not in found:
            found[name] = _Aimed(limit_counts(ticked, None, now_s, t_s), {}, 0.0)
    return found


def _same(allocation: Allocation, granted: Mapping[DeploymentId, LimitedCounts]) -> bool:
    return all(
        (answer := allocation.pools.get((name, pool))) is not None and answer.replicas == count
        for name, given in granted.items()
        for pool, count in given.counts.items()
    )


def _goals(ticked: SizedDeployment, allocation: Allocation, granted: LimitedCounts) -> Goals:
    """No goals for a deployment that is watched only: its GPUs keep the caps that they have."""
    if ticked.config.mode is not OperationMode.ACTIVE or (ticked.hold is not None and ticked.hold.frozen):
        return {}
    return powering.goals(ticked.config, allocation, granted.counts)


def _aimed(ticked: SizedDeployment, aimed: _Aimed, t_s: float, interval_s: float) -> DeploymentState:
    """The state that remembers what the tick aims at, and the recommendations that windows look back on."""
    remembered_s = (ticked.config.load.decode_grace_intervals + 1) * interval_s
    pools = {}
    for name, pool in ticked.state.pools.items():
        since = t_s - max(hpa_behavior.horizon_s(ticked.config.pools[name]), remembered_s)
        past = hpa_behavior.trimmed(pool.recommendations, since)
        if (count := aimed.granted.recommended.get(name)) is not None:
            past = (*past, (t_s, count))
        pools[name] = replace(pool, recommendations=past, events=hpa_behavior.trimmed(pool.events, since))
    why = {name: _binding(chain) for name, chain in aimed.granted.chains.items() if chain}
    return replace(ticked.state, pools=pools, goals=aimed.goals, why=why, running=ticked.current)


def _binding(chain: Sequence[Limited]) -> Limited:
    """The last word that set the count: a shortfall is what follows from it."""
    return next((link for link in reversed(chain) if link.reason is not ReasonCode.SHORTFALL), chain[-1])


def _plan(
    state: PlannerState,
    config: PlannerConfig,
    now_s: float,
    power: tuple[PowerDecision, ...],
    scaling: list[ScalingDecision],
    plans: Mapping[DeploymentId, DeploymentPlan],
) -> Plan:
    sites: dict[SiteId, SitePlan] = {}
    events = []
    for name, site in config.sites.items():
        if powering.powered(state, name):
            sites[name] = ledger.summary(state.power[name], site, now_s)
            events.append(ledger.next_event_s(state.power[name], site, now_s))
    for member, known in state.deployments.items():
        if known.pending_since_s is not None and member in config.deployments:
            events.append(known.pending_since_s + config.sites[config.deployments[member].site].patience_s)
    times = [at for at in events if at is not None and at > now_s]
    return Plan(plans, sites, tuple(scaling), power, min(times, default=None))
