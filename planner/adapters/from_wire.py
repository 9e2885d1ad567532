"""Wire to domain: acknowledgements, telemetry and control messages become values of the observation. Pure.

Message times are UTC; the domain's are seconds of the planner's clock, which reads ``clock_offset_s`` less.
"""

from __future__ import annotations

from bus_schemas import v1
from planner.adapters.metrics.engine_metrics import COMPONENTS
from planner.core.leavers import drained_id
from planner.core.state import Flow, Starts
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId
from planner.domain.observation import (
    BudgetCommand,
    DeploymentCommand,
    GpuCapInForce,
    GpuObservation,
    HoldCommand,
    NodeCommand,
    NodeObservation,
    PowerAckSeen,
    ScalingAckSeen,
    StoredCaps,
)
from planner.domain.pool import Role
from planner.domain.units import GpuSetpoint, mw_from_watts

ROLES = {role.value: role for role in Role}

_ANSWERS = frozenset({v1.GpuHealth.OK, v1.GpuHealth.UNKNOWN})
"""Health states in which the GPU is not lost: a limit can be set, or a read failed for the moment."""


def scaling_ack(ack: v1.ScalingAck, *, sequence: int = 0) -> ScalingAckSeen:
    """A deployment's acknowledgement."""
    return ScalingAckSeen(
        deployment=DeploymentId(ack.deployment),
        decision_id=ack.decision_id,
        scaled_decision_id=ack.scaled_decision_id,
        status=ack.status.value,
        reason=ack.reason,
        sequence=sequence,
        phase="" if ack.phase is None else ack.phase.value,
        retryable=ack.retryable,
    )


def power_ack(ack: v1.PowerAck, *, sequence: int = 0) -> PowerAckSeen:
    """A node's acknowledgement, with what its hardware enforces."""
    return PowerAckSeen(
        node=NodeId(ack.node),
        epoch=ack.epoch,
        decision_id=ack.decision_id,
        applied_decision_id=ack.applied_decision_id,
        status=ack.status.value,
        gpus=tuple(_in_force(gpu) for gpu in ack.gpus),
        reason=ack.reason,
        boot=ack.boot,
        clock_s=ack.clock_s,
        incarnation=ack.incarnation,
        sequence=sequence,
    )


def _in_force(gpu: v1.GpuInForce) -> GpuCapInForce:
    # A failed read proves neither a limit nor a loss: its values are old and are left out.
    unread = gpu.health is v1.GpuHealth.UNKNOWN
    return GpuCapInForce(
        gpu=GpuId(gpu.gpu),
        requested_mw=None if unread else _mw(gpu.requested_watts),
        enforced_mw=None if unread else _mw(gpu.enforced_watts),
        healthy=gpu.health in _ANSWERS,
        reset=gpu.reset,
    )


def _mw(watts: float | None) -> int | None:
    return None if watts is None else mw_from_watts(watts)


def node(telemetry: v1.NodeTelemetry, *, age_s: float, sequence: int = 0) -> NodeObservation:
    """A node's GPUs as last reported by its agent. An empty deployment, pool, role or worker is None: unknown."""
    gpus = {GpuId(gpu.gpu): _gpu(gpu) for gpu in telemetry.gpus}
    return NodeObservation(NodeId(telemetry.node), gpus, age_s, telemetry.boot, telemetry.clock_s, sequence)


def _gpu(gpu: v1.GpuTelemetry) -> GpuObservation:
    unread = gpu.health is v1.GpuHealth.UNKNOWN
    return GpuObservation(
        gpu=GpuId(gpu.gpu),
        draw_mw=None if unread else _mw(gpu.draw_watts),
        requested_mw=None if unread else _mw(gpu.requested_watts),
        enforced_mw=None if unread else _mw(gpu.enforced_watts),
        default_mw=mw_from_watts(gpu.default_watts),
        min_mw=mw_from_watts(gpu.min_watts),
        max_mw=mw_from_watts(gpu.max_watts),
        healthy=gpu.health in _ANSWERS,
        deployment=DeploymentId(gpu.deployment) if gpu.deployment else None,
        pool=PoolId(gpu.pool) if gpu.pool else None,
        role=_role(gpu),
        worker=gpu.worker or None,
        terminating=gpu.terminating,
        component=gpu.pool,
    )


def _role(gpu: v1.GpuTelemetry) -> Role | None:
    """The worker's role; where its pod has no role label (the agent then reports ``aggregated``), by its component."""
    role = ROLES.get(gpu.role)
    return COMPONENTS.get(gpu.pool.casefold(), role) if role in {None, Role.AGGREGATED} else role


def budget_command(change: v1.BudgetChange, *, sequence: int, clock_offset_s: float = 0.0) -> BudgetCommand:
    """A budget's change. One without a start holds from when it was written."""
    start = change.effective_from or change.time
    until = change.effective_until
    return BudgetCommand(
        site=change.site,
        budget_mw=None if change.release else mw_from_watts(change.budget_watts),
        from_s=start.timestamp() - clock_offset_s,
        until_s=None if until is None else until.timestamp() - clock_offset_s,
        ramp_s=change.ramp_s,
        sequence=sequence,
        reason=change.reason,
    )


def deployment_command(control: v1.DeploymentControl, *, sequence: int) -> DeploymentCommand:
    """An operator's command on a deployment."""
    return DeploymentCommand(
        deployment=DeploymentId(control.deployment),
        action=control.action,
        replicas={PoolId(pool): count for pool, count in control.replicas.items()},
        sequence=sequence,
        reason=control.reason,
        command_id=control.command_id,
    )


def node_command(control: v1.NodeControl, *, sequence: int, clock_offset_s: float = 0.0) -> NodeCommand:
    """An operator's command on a node, with the time when it was written: a later sign of life makes it void."""
    issued_s = control.time.timestamp() - clock_offset_s
    return NodeCommand(NodeId(control.node), control.action, sequence, control.reason, issued_s)


def hold_command(control: v1.NodeControl, *, sequence: int, clock_offset_s: float = 0.0) -> HoldCommand | None:
    """The hold on a node's GPUs that a command carries; None where it carries none."""
    hold = control.hold
    if hold is None:
        return None
    return HoldCommand(
        node=NodeId(control.node),
        hold_id=hold.hold_id,
        gpus=tuple(map(GpuId, hold.gpus)),
        cap_mw=mw_from_watts(hold.cap_watts),
        issued_s=control.time.timestamp() - clock_offset_s,
        for_s=hold.for_s,
        sequence=sequence,
        release=hold.release,
        issued_by=control.issued_by,
    )


def stored_caps(decision: v1.PowerDecision, *, clock_offset_s: float = 0.0) -> StoredCaps:
    """The predecessor's ledger of one node. A GPU without a charge is left out, so that it starts at its default."""
    return StoredCaps(
        node=NodeId(decision.node),
        decision_id=decision.decision_id,
        setpoints={GpuId(cap.gpu): GpuSetpoint(mw_from_watts(cap.cap_watts)) for cap in decision.caps},
        charged_mw={
            GpuId(cap.gpu): mw_from_watts(cap.charged_watts) for cap in decision.caps if cap.charged_watts is not None
        },
        stored_s=decision.time.timestamp() - clock_offset_s,
        highest_mw={
            GpuId(cap.gpu): mw_from_watts(cap.highest_watts) for cap in decision.caps if cap.highest_watts is not None
        },
        outside=frozenset(map(GpuId, decision.outside_gpus or ())),
    )


def last_decision(
    decision: v1.ScalingDecision, ack: v1.ScalingAck | None, *, clock_offset_s: float = 0.0
) -> tuple[DeploymentId, Flow]:
    """A deployment's last decision and how far it was carried out, as a new leader finds them.

    An acknowledgement of another incarnation refers to other ids and proves nothing about this decision.
    """
    same = ack is not None and ack.incarnation in {"", decision.incarnation}
    return DeploymentId(decision.deployment), Flow(
        decision_id=decision.decision_id,
        published={
            **{PoolId(pool): target.replicas for pool, target in decision.pools.items()},
            **{PoolId(pool): replicas for pool, replicas in decision.other_pools.items()},
        },
        scaled_decision_id=ack.scaled_decision_id if same and ack is not None else -1,
        decided_at_s=decision.time.timestamp() - clock_offset_s,
        drained_decision_id=drained_id(None, scaling_ack(ack)) if same and ack is not None else None,
        starts=Starts(
            at_most={PoolId(pool): count for pool, count in (decision.at_most or {}).items()},
            kept={PoolId(pool): gpus for pool, gpus in (decision.kept_gpus or {}).items()},
            unstated=decision.at_most is None,
        ),
    )
