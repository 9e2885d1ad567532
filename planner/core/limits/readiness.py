"""The decision flow: one decision at a time, the next when the last was carried out or its time ran out.

With ``wait_for_scaling`` off the next goes out while an earlier one is still being carried out: it takes its place,
and whoever carries it out says ``superseded`` of the earlier.

Owns what acknowledgements and operators' orders do to a deployment's state. Must never invent a decision.
"""

from __future__ import annotations

from dataclasses import replace

from planner.core.state import DeploymentState
from planner.domain.config import DeploymentConfig
from planner.domain.observation import DeploymentCommand, ScalingAckSeen
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode


def acknowledged(state: DeploymentState, ack: ScalingAckSeen | None) -> DeploymentState:
    """The state after an acknowledgement. What was carried out once stays carried out: ids never fall."""
    if ack is None or ack.scaled_decision_id <= state.scaled_decision_id:
        return state
    return replace(state, scaled_decision_id=ack.scaled_decision_id)


def ordered(state: DeploymentState, orders: tuple[DeploymentCommand, ...]) -> DeploymentState:
    """The state after an operator's orders, oldest first; an order seen before changes nothing."""
    for order in sorted(orders, key=lambda o: o.sequence):
        if order.sequence <= state.command_sequence:
            continue
        state = replace(state, command_sequence=order.sequence)
        if order.action in ("pause", "resume"):
            state = replace(state, paused=order.action == "pause")
        elif order.action == "pin":
            state = replace(state, pinned=dict(order.replicas))
        elif order.action == "release":
            state = replace(state, pinned=None)
    return state


def blocked(state: DeploymentState, config: DeploymentConfig, now_s: float) -> Limited | None:
    """Why no newer decision may be published now; None where one may."""
    if state.ready or not config.wait_for_scaling or timed_out(state, config, now_s):
        return None
    waited = now_s - state.decided_at_s
    sentence = (
        f"decision {state.decision_id} is not carried out yet ({waited:.0f} s of {config.scaling_timeout_s:.0f} s)"
    )
    return Limited(state.decision_id, ReasonCode.SCALING_IN_PROGRESS, sentence)


def timed_out(state: DeploymentState, config: DeploymentConfig, now_s: float) -> bool:
    """Whether the last decision was waited for long enough: the planner then goes on, and says so."""
    waited_s = now_s - state.decided_at_s
    return config.wait_for_scaling and not state.ready and waited_s >= config.scaling_timeout_s
