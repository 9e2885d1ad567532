"""Decisions: the state that the leading planner wants actuators and agents to bring about."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from bus_schemas.v1.message import DecisionId, Epoch, Message, Name, Part, Watts, WorkerCount, present
from bus_schemas.v1.reason import Reason


class PoolTarget(Part):
    """The number of replicas that one pool should have."""

    role: Literal["prefill", "decode", "aggregated"]
    replicas: int = Field(ge=0)
    gpus_per_replica: int = Field(default=1, ge=1)


class PlacementHint(Part):
    """Where a new replica's watts are reserved. An orchestrator that can choose GPUs should choose these."""

    pool: Name
    node: Name
    gpus: tuple[Name, ...]


class ScalingDecision(Message):
    """How many workers a deployment should run. ``num_*`` mirror Dynamo's VirtualConnector; ``pools`` is complete."""

    type: Literal["wattscale.v1.scaling_decision"] = "wattscale.v1.scaling_decision"
    deployment: Name
    decision_id: DecisionId
    incarnation: Name
    """Changes only when ``decision_id`` starts again at 0."""
    epoch: Epoch
    num_prefill_workers: WorkerCount = -1
    num_decode_workers: WorkerCount = -1
    pools: dict[str, PoolTarget] = Field(default_factory=dict)
    other_pools: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Replicas of pools without GPUs (frontends) that this planner scales, too; empty where others do."""
    placements: tuple[PlacementHint, ...] = ()
    reasons: tuple[Reason, ...] = ()
    at_most: dict[str, Annotated[int, Field(ge=0)]] | None = None
    """Where the budget covers workers only: the most replicas of each pool that this decision, and earlier ones which
    are not carried out, may still have running or draining. The next leader keeps their watts reserved."""
    kept_gpus: dict[str, Annotated[int, Field(ge=0)]] | None = None
    """Likewise: GPUs of replicas of each pool that lived before this decision and that it does not let go."""

    @model_serializer(mode="wrap")
    def _without_absent(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return present(written(self), "at_most", "kept_gpus")


class GpuCap(Part):
    """One GPU's desired power cap. After ``valid_for_s`` without renewal the agent steps DOWN to ``fallback_watts``."""

    gpu: Name
    """The GPU's UUID."""
    cap_watts: Watts
    fallback_watts: Watts
    charged_watts: Watts | None = None
    """The most that this GPU may draw under all decisions so far: where the next leader's ledger starts."""
    highest_watts: Watts | None = None
    """The highest limit that the GPU can have: its default or its hardware maximum, as last reported."""


class PowerDecision(Message):
    """The complete desired caps of a node: a state, not a delta. The newest decision applies."""

    type: Literal["wattscale.v1.power_decision"] = "wattscale.v1.power_decision"
    node: Name
    decision_id: DecisionId
    incarnation: Name
    epoch: Epoch
    valid_for_s: float = Field(gt=0, le=86400)
    """How long the caps hold on the agent's monotonic clock: from the report that ``heard_*`` names, if the receiving
    process made it, otherwise from the moment of receipt."""
    caps: tuple[GpuCap, ...]
    site: str = ""
    budget_watts: Watts | None = None
    heard_boot: str = ""
    heard_clock_s: float | None = None
    """``boot`` and ``clock_s`` of the node's newest report that the planner had received: a decision that is delivered
    late counts as old on arrival and raises nothing."""
    only_lowers: bool = False
    """The site is above its budget: lower and renew limits, but raise none, not even back to its cap."""
    reasons: tuple[Reason, ...] = ()
    outside_gpus: tuple[Name, ...] | None = None
    """Where the budget covers workers only: GPUs in ``caps`` that no worker holds and that are reserved for none."""
    released_gpus: tuple[Name, ...] | None = None
    """Likewise: GPUs that are left to others, because their pods hold them: give back the default where an earlier
    decision lowered the limit, and keep no target."""

    @model_serializer(mode="wrap")
    def _without_absent(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return present(written(self), "outside_gpus", "released_gpus")
