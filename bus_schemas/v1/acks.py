"""Acknowledgements: they report what is in force, not what was requested."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from bus_schemas.v1.message import DecisionId, Epoch, LastDecisionId, Message, Name, Part, Watts, WorkerCount, present


class AckStatus(StrEnum):
    """How far a decision has come."""

    ACCEPTED = "accepted"
    """Received; work has begun."""
    APPLIED = "applied"
    """Carried out completely."""
    PARTIAL = "partial"
    """Carried out in part; the other fields report what is in force."""
    FAILED = "failed"
    """Not carried out; see ``reason`` and ``retryable``."""
    REJECTED = "rejected"
    """Never valid here: older epoch or id, unknown pool, not this node."""
    SUPERSEDED = "superseded"
    """A newer decision arrived before this one was carried out."""


class AckPhase(StrEnum):
    """The stage within a status. Of one decision it only moves forward."""

    STARTING = "starting"
    """With ``accepted``: wanted replicas do not serve yet."""
    APPLIED = "applied"
    """With ``applied``: every wanted replica serves; what became of those that left is not known yet."""
    DRAINING = "draining"
    """With ``applied``: every wanted replica serves, and others still finish requests or hold GPUs."""
    DRAINED = "drained"
    """With ``applied``: what left is gone and its GPUs are idle. Their watts may be credited."""


class PoolProgress(Part):
    """One pool's replicas: how many serve, and how many the decision wants."""

    ready: int = Field(ge=0)
    wanted: int = Field(ge=0)


class RestartProgress(Part):
    """How far the newest commanded restart of the deployment's graph has come."""

    restart_id: Name
    phase: Literal["rejected", "waiting", "asked", "restarting", "completed", "failed", "superseded"]
    """``waiting``: nothing is written yet; ``asked``: written into the graph, whose operator has not begun."""
    in_progress: tuple[Name, ...] = ()
    """Components that restart now."""
    reason: str = ""


class ScalingAck(Message):
    """An actuator's acknowledgement. The decision is complete when ``scaled_decision_id >= decision_id``."""

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
    """Ready replicas by pool."""
    done: int | None = None
    total: int | None = None
    actuator: str = ""
    phase: AckPhase | None = None
    """The stage within the status; absent where the actuator cannot see it. A decision that lets replicas go has two
    acknowledgements with ``applied``: when its counts are in force, and when what left is ``drained``."""
    pools: dict[str, PoolProgress] = Field(default_factory=dict)
    """By pool, replicas that serve and that are wanted."""
    external_decision_id: DecisionId | None = None
    """The highest id under which a bridge has passed decisions on to a system that numbers them itself."""
    restart: RestartProgress | None = None
    """Absent where no restart was commanded. An acknowledgement is repeated when only this changes."""

    @model_serializer(mode="wrap")
    def _without_absent(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return present(written(self), "restart")


class GpuHealth(StrEnum):
    """What the agent can do with a GPU."""

    OK = "ok"
    UNCAPPABLE = "uncappable"
    """The driver does not allow a limit on this GPU: charged at its default limit."""
    QUARANTINED = "quarantined"
    """Lost or in need of a reset: charged at its default limit until it responds again."""
    UNKNOWN = "unknown"
    """The last read failed; the values are older."""


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
    """A node agent's acknowledgement. ``applied_decision_id`` is the last decision that was carried out completely."""

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
    """Identifies the agent process; changes when it restarts."""
    clock_s: float | None = None
    """The agent's monotonic clock at the readback. Opaque: decisions echo it, and it orders the reports of
    one boot."""
