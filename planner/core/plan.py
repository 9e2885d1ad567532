"""The whole planner as two pure functions: ``step`` at every tick, ``react`` between ticks.

Owns the order of things: what was seen, what is wanted, what limits it, what is granted, what goes out. Reads no clock
and touches no wire, so service, simulation, replay and tests all decide alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from planner.core.grant import Granted, grant
from planner.core.report import deployment_plan
from planner.core.safety import behavior, flow
from planner.core.state import DeploymentState, LastDecision, PlannerState, PoolState
from planner.core.tick import Ticked, tick
from planner.domain.config import OperationMode, PlannerConfig
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.observation import Observation
from planner.domain.plan import DeploymentPlan, Plan, ScalingOrder


def initial_state(
    config: PlannerConfig, epoch: int, now_s: float, last_decisions: Iterable[LastDecision] = ()
) -> PlannerState:
    """What a planner knows when it takes the lead: what the streams hold of each deployment, and nothing else."""
    known = {last.deployment: last for last in last_decisions}
    return PlannerState(
        epoch=epoch,
        started_s=now_s,
        deployments={name: _resumed(known.get(name)) for name in config.deployments},
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
    state: PlannerState, observation: Observation, config: PlannerConfig, now_s: float
) -> tuple[PlannerState, Plan]:
    """One tick: the next state and everything that was decided, with its reasons."""
    state = _absorb(state, observation, config)
    ticks = {
        name: tick(config, deployment, state.deployments[name], observation.deployments.get(name), now_s)
        for name, deployment in config.deployments.items()
    }
    t_s = config.load_now_s(now_s)
    deployments, plans, orders = {}, {}, []
    for name, ticked in ticks.items():
        granted = grant(ticked, now_s, t_s)
        next_state, order = _decide(ticked, granted, now_s, t_s)
        plan = deployment_plan(ticked, granted, next_state)
        deployments[name] = replace(next_state, plan=plan.pools)
        plans[name] = plan
        if order is not None:
            orders.append(order)
    return replace(state, deployments=deployments), Plan(deployments=plans, scaling=tuple(orders))


def react(
    state: PlannerState, observation: Observation, config: PlannerConfig, now_s: float
) -> tuple[PlannerState, Plan]:
    """Between ticks: acknowledgements and orders, without sizing."""
    state = _absorb(state, observation, config)
    plans: dict[DeploymentId, DeploymentPlan] = {}
    return state, Plan(deployments=plans)


def _absorb(state: PlannerState, observation: Observation, config: PlannerConfig) -> PlannerState:
    deployments = {}
    for name in config.deployments:
        known = state.deployments.get(name) or DeploymentState()
        known = flow.acknowledged(known, observation.scaling_acks.get(name))
        orders = tuple(order for order in observation.deployment_orders if order.deployment == name)
        deployments[name] = flow.ordered(known, orders) if orders else known
    return replace(state, deployments=deployments)


def _decide(ticked: Ticked, granted: Granted, now_s: float, t_s: float) -> tuple[DeploymentState, ScalingOrder | None]:
    """The state after the tick, and the decision to publish where counts change and one may go out."""
    config, state = ticked.config, ticked.state
    pools = {
        name: _recorded(pool, ticked, name, granted.recommended.get(name), t_s) for name, pool in state.pools.items()
    }
    changed = any(granted.counts[name] != ticked.current[name] for name in config.pools)
    if not changed or granted.blocked is not None or config.mode is not OperationMode.ACTIVE:
        return replace(state, pools=pools), None
    for name, pool in pools.items():
        change = granted.counts[name] - ticked.current[name]
        events = (*pool.events, (t_s, change)) if change else pool.events
        pools[name] = replace(pool, decided=granted.counts[name], events=events)
    state = replace(state, pools=pools, decision_id=state.decision_id + 1, decided_at_s=now_s)
    order = ScalingOrder(
        deployment=config.deployment,
        decision_id=state.decision_id,
        replicas=dict(granted.counts),
        roles={name: pool.role for name, pool in config.pools.items()},
        reasons=granted.reasons(ticked.current),
    )
    return state, order


def _recorded(pool: PoolState, ticked: Ticked, name: PoolId, recommended: int | None, t_s: float) -> PoolState:
    since = t_s - behavior.horizon_s(ticked.config.pools[name])
    recommendations = behavior.trimmed(pool.recommendations, since)
    if recommended is not None:
        recommendations = (*recommendations, (t_s, recommended))
    return replace(pool, recommendations=recommendations, events=behavior.trimmed(pool.events, since))


def counts_of(plan: DeploymentPlan) -> Mapping[PoolId, int]:
    """The granted counts of a plan, for callers that want numbers only."""
    return {name: pool.granted for name, pool in plan.pools.items()}
