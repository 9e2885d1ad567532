"""Models as readers of an earlier day had them: never to be changed.

A scaling decision before pools without GPUs, a scaling acknowledgement before phases, and a deployment's command before
restarts. A reader of that day must still take the whole of every newer message, and lose nothing that it knew.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class FrozenPart(BaseModel):
    """Unknown fields are ignored: v1 only grows."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class FrozenReason(FrozenPart):
    code: str
    text: str = ""


class FrozenPoolTarget(FrozenPart):
    role: Literal["prefill", "decode", "aggregated"]
    replicas: int = Field(ge=0)
    gpus_per_replica: int = Field(default=1, ge=1)


class FrozenPlacementHint(FrozenPart):
    pool: str
    node: str
    gpus: tuple[str, ...]


class FrozenScalingDecision(FrozenPart):
    type: Literal["wattscale.v1.scaling_decision"] = "wattscale.v1.scaling_decision"
    time: datetime
    deployment: str
    decision_id: int
    incarnation: str
    epoch: int
    num_prefill_workers: int = -1
    num_decode_workers: int = -1
    pools: dict[str, FrozenPoolTarget] = Field(default_factory=dict)
    placements: tuple[FrozenPlacementHint, ...] = ()
    reasons: tuple[FrozenReason, ...] = ()


class FrozenScalingAck(FrozenPart):
    type: Literal["wattscale.v1.scaling_ack"] = "wattscale.v1.scaling_ack"
    time: datetime
    deployment: str
    decision_id: int
    scaled_decision_id: int
    incarnation: str = ""
    status: Literal["accepted", "applied", "partial", "failed", "rejected", "superseded"]
    reason: str = ""
    retryable: bool = True
    num_prefill_workers: int = -1
    num_decode_workers: int = -1
    replicas: dict[str, int] = Field(default_factory=dict)
    done: int | None = None
    total: int | None = None
    actuator: str = ""


class FrozenDeploymentControl(FrozenPart):
    type: Literal["wattscale.v1.deployment_control"] = "wattscale.v1.deployment_control"
    time: datetime
    deployment: str
    action: Literal["pause", "resume", "pin", "release"]
    replicas: dict[str, int] = Field(default_factory=dict)
    reason: str = ""
    issued_by: str = ""
    command_id: str | None = None
