"""Intake: what a new leader takes over, and what every iteration takes in before anything is decided.

Acknowledgements, operators' commands and telemetry become state here. Must never invent a decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from planner.core import advisory, leavers
from planner.core.forecast import registry
from planner.core.forecast.band import Band
from planner.core.forecast.warm import reminded, warmed
from planner.core.power import site_ledger as ledger
from planner.core.power.site_state import belongs
from planner.core.sizing import classic, load_forecast
from planner.core.state import DeploymentState, Flow, Learned, PlannerState
from planner.domain.config import DeploymentConfig, PlannerConfig, SizingMode
from planner.domain.ids import DeploymentId, NodeId
from planner.domain.observation import (
    DeploymentCommand,
    DeploymentObservation,
    NodeObservation,
    Observation,
    ScalingAckSeen,
    StoredCaps,
)
from planner.domain.units import TickClock


def initial_state(
    config: PlannerConfig,
    epoch: int,
    now_s: float,
    last_decisions: Iterable[tuple[DeploymentId, Flow]],
    stored_caps: Iterable[StoredCaps],
    *,
    doubted: bool = False,
) -> PlannerState:
    """The first state of a planner that takes the lead, from what the streams hold.

    ``stored_caps``: the last power decision of every node, read AFTER leadership was won; empty if there never was one.
    ``doubted``: they may come from an old copy of the bus.
    """
    flows = dict(last_decisions)
    pages = tuple(stored_caps)
    return PlannerState(
        epoch=epoch,
        started_s=now_s,
        deployments={
            name: DeploymentState(
                _known_pools(flows.get(name, Flow()), deployment), Learned(forecasts=warm(config, deployment, now_s))
            )
            for name, deployment in config.deployments.items()
        },
        power={name: ledger.initial(site, epoch, now_s, pages, doubted=doubted) for name, site in config.sites.items()},
    )


def _known_pools(flow: Flow, config: DeploymentConfig) -> Flow:
    """Counts without pools that are no longer configured, because nothing would ever report their replicas."""
    kept = {name: count for name, count in flow.published.items() if name in config.all_pools}
    return flow if len(kept) == len(flow.published) else replace(flow, published=kept)


def warm(config: PlannerConfig, deployment: DeploymentConfig, now_s: float) -> Mapping[str, Band]:
    """Forecasts that have learned the deployment's recorded trace, or its past days; empty if it has neither."""
    if not deployment.history and not deployment.past_load:
        return {}
    interval_s = config.load_interval_s
    if deployment.sizing is SizingMode.CLASSIC:
        fresh = classic.fresh(config, deployment, interval_s)
        return classic.warmed(fresh, deployment.history, interval_s, config.load_now_s(now_s))
    ahead_s = load_forecast.horizon_s(deployment, interval_s)
    make = partial(registry.make, deployment.predictor, deployment.forecast_level, ahead_s, config.predictors)
    fresh = {name: make().over(load_forecast.span_s(deployment)) for name in load_forecast.QUANTITIES}
    if deployment.past_load:
        return reminded(fresh, deployment.past_load, config.load_time_scale, config.load_now_s(now_s))
    return warmed(fresh, deployment.history, interval_s, config.load_now_s(now_s))


def absorb(state: PlannerState, observation: Observation, config: PlannerConfig, clock: TickClock) -> PlannerState:
    """The state after acknowledgements, operators' commands and telemetry."""
    deployments = {}
    for name in config.deployments:
        known = _acknowledged(state.deployments.get(name) or DeploymentState(), observation.scaling_acks.get(name))
        known = _serving(known, observation.deployments.get(name))
        if observation.deployment_commands:
            known = _commanded(known, tuple(c for c in observation.deployment_commands if c.deployment == name))
        deployments[name] = known
    power = {}
    watching = advisory.watching(config)
    for site, settings in config.sites.items():
        before = state.power[site]
        reports = observation.nodes.items()
        nodes: Mapping[NodeId, NodeObservation] = {
            node: seen for node, seen in reports if node in before.nodes or belongs(node, settings)
        }
        if not advisory.hands_off(config, site):
            if watching:
                nodes = {node: advisory.as_they_stand(seen, config, before) for node, seen in nodes.items()}
            nodes = leavers.observed(nodes, before, config, deployments, clock.now_s)
        fresh = ledger.absorb(before, replace(observation, nodes=nodes), settings, clock.now_s)
        left = leavers.left(fresh, deployments)
        power[site] = fresh if left == fresh.left_gpus else replace(fresh, left_gpus=left)
    return replace(state, deployments=deployments, power=power)


def _acknowledged(state: DeploymentState, ack: ScalingAckSeen | None) -> DeploymentState:
    """The state after an acknowledgement. Ids never decrease, because what was carried out stays carried out.

    Except that one of a decision which was never made is believed until the next answer only.
    """
    if ack is None:
        return state
    if ack.decision_id <= state.flow.decision_id:
        drained = leavers.drained_id(state.flow.drained_decision_id, ack)
        if drained != state.flow.drained_decision_id:
            state = replace(state, flow=replace(state.flow, drained_decision_id=drained))
    known = state.flow.scaled_decision_id
    if ack.scaled_decision_id == known or ack.scaled_decision_id < known <= state.flow.decision_id:
        return state
    return replace(state, flow=replace(state.flow, scaled_decision_id=ack.scaled_decision_id))


def _serving(state: DeploymentState, seen: DeploymentObservation | None) -> DeploymentState:
    """The state after checking whether all replicas of the last decision serve."""
    flow = state.flow
    if seen is None or flow.serving_decision_id >= flow.decision_id or not flow.published:
        return state
    ready = {name: pool.replicas.ready for name, pool in seen.pools.items()}
    if any(ready.get(name, -1) < count for name, count in flow.published.items()):
        return state
    return replace(state, flow=replace(flow, serving_decision_id=flow.decision_id))


def _commanded(state: DeploymentState, commands: tuple[DeploymentCommand, ...]) -> DeploymentState:
    """The state after an operator's commands, oldest first; one that was seen before changes nothing."""
    operator = state.operator
    for command in sorted(commands, key=lambda c: c.sequence):
        if command.sequence <= operator.sequence:
            continue
        operator = replace(operator, sequence=command.sequence)
        if command.action in ("pause", "resume"):
            operator = replace(operator, paused=command.action == "pause")
        elif command.action == "pin":
            operator = replace(operator, pinned=dict(command.replicas), pin_id=command.command_id)
        elif command.action == "release":
            operator = replace(operator, pinned=None, pin_id=None)
    return state if operator is state.operator else replace(state, operator=operator)
