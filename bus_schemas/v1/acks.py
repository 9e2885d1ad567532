"""Acknowledgements: what IS in force, not what was asked."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from bus_schemas.v1.message import Epoch, LastDecisionId, Message, Name, Part, Watts, WorkerCount


class AckStatus(StrEnum):
    """How far a decision has come."""

    ACCEPTED = "accepted"
    """Received; work has begun."""
    APPLIED = "applied"
    """Carried out completely."""
    PARTIAL = "partial"
    """Carried out in part; the message says what is in force."""
    FAILED = "failed"
    """Not carried out; ``reason`` and ``retryable`` say more."""
    REJECTED = "rejected"
    """Never valid here: older epoch or id, unknown pool, not this node."""
    SUPERSEDED = "superseded"
    """A newer decision arrived before this one was carried out."""


class ScalingAck(Message):
    """An actuator's answer. The decision is done when ``scaled_decision_id >= decision_id``."""

    type: Literal["wattscale.v1.scaling_ack"] = "wattscale.v1.scaling_ack"
    deployment: Name
    decision_id: LastDecisionId
    scaled_decision_id: LastDecisionId
    incarnation: str = ""
    status: AckStatus
    reason: str = ""
    retryable: bool = True
    num_prefill_workers: WorkerCount = -1
    num_decode_workers: WorkerCount = -1
    replicas: dict[str, int] = Field(default_factory=dict)
    """Replicas in force by pool, ready ones only."""
    done: int | None = None
    total: int | None = None
    actuator: str = ""


class GpuHealth(StrEnum):
    """What the agent can do with a GPU."""

    OK = "ok"
    UNCAPPABLE = "uncappable"
    """The driver never lets us set a limit here: charged at its default."""
    QUARANTINED = "quarantined"
    """Lost, or wants a reset: charged at its default until it answers again."""
    UNKNOWN = "unknown"
    """The last read failed; the values are from before."""


class GpuInForce(Part):
    """One GPU's limits as read back from the hardware after the decision was carried out."""

    gpu: Name
    requested_watts: Watts | None = None
    enforced_watts: Watts | None = None
    health: GpuHealth = GpuHealth.OK
    reset: bool = False
    """The limit was lost (driver reload, reset) since the last report."""
    reason: str = ""


class PowerAck(Message):
    """A node agent's answer. ``applied_decision_id`` is the last decision carried out COMPLETELY."""

    type: Literal["wattscale.v1.power_ack"] = "wattscale.v1.power_ack"
    node: Name
    decision_id: LastDecisionId
    applied_decision_id: LastDecisionId
    incarnation: str = ""
    epoch: Epoch
    status: AckStatus
    reason: str = ""
    retryable: bool = True
    gpus: tuple[GpuInForce, ...]
    boot: str = ""
    """Identity of the agent process; changes on restart."""
    clock_s: float | None = None
    """The agent's monotonic clock at the readback. Opaque: decisions echo it, and it orders one boot's reports."""
