"""Control messages: commands of operators, schedules and grid signals to planners."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from bus_schemas.v1.message import Message, Name, Part, Time, Watts, present


class BudgetChange(Message):
    """A site's new budget, reached ``ramp_s`` seconds after ``effective_from`` and in force until ``effective_until``.

    Of all changes that have begun and not ended, the newest applies; when it ends, the one before it applies again.
    """

    type: Literal["wattscale.v1.budget_change"] = "wattscale.v1.budget_change"
    site: Name
    budget_watts: Watts
    effective_from: Time | None = None
    """Absent: at once."""
    effective_until: Time | None = None
    """Absent: until the next change."""
    release: bool = False
    """Return to the configured budget and schedule; ``budget_watts`` is for readers that do not know this field."""
    ramp_s: float = Field(default=0.0, ge=0)
    reason: str = ""
    issued_by: str = ""


class RestartOrder(Part):
    """Restart all workers of a deployment's graph, once for each ``restart_id``."""

    restart_id: Name
    strategy: Literal["sequential", "parallel"] = "sequential"
    """One component at a time, or all at once. Where the site has a power budget it is one at a time in any case."""
    order: tuple[Name, ...] = ()
    """With ``sequential``: every component once; empty: as the graph's operator has them."""


class DeploymentControl(Message):
    """Pause or resume a deployment's scaling, pin its replicas, or release the pin; or restart its graph."""

    type: Literal["wattscale.v1.deployment_control"] = "wattscale.v1.deployment_control"
    deployment: Name
    action: Literal["pause", "resume", "pin", "release"]
    replicas: dict[str, int] = Field(default_factory=dict)
    """With ``pin``: replicas by pool."""
    reason: str = ""
    issued_by: str = ""
    command_id: Name | None = None
    """What tells a command from all others: plan records name the pin that is in force by it."""
    restart: RestartOrder | None = None
    """For the deployment's connector. ``action``, ``replicas`` and ``command_id`` then repeat the command before, so
    that planners, and readers that do not know this field, see no change."""

    @model_serializer(mode="wrap")
    def _without_absent(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return present(written(self), "command_id", "restart")


class GpuHold(Part):
    """Hold GPUs that no pool has under a cap for a while, as a profiler does; or release them.

    The planner stays the only writer of caps: it grants a hold that fits into the budget beside what pools want. A hold
    ends ``for_s`` seconds after the message was written, or was received if that is sooner; the newest message with a
    ``hold_id`` replaces those before it.
    """

    hold_id: Name
    gpus: tuple[Name, ...] = Field(default=(), max_length=64)
    """By UUID. All of them are held, or none."""
    cap_watts: Watts = 0.0
    """The cap of each."""
    for_s: float = Field(default=30.0, gt=0, le=600)
    release: bool = False
    """End the hold now; the other fields say nothing then."""


class NodeControl(Message):
    """An operator's command: the node is gone (powered off, removed) and its charge may be dropped, or it is back; or
    a hold on its GPUs.
    """

    type: Literal["wattscale.v1.node_control"] = "wattscale.v1.node_control"
    node: Name
    action: Literal["remove", "restore"]
    reason: str = ""
    issued_by: str = ""
    hold: GpuHold | None = None
    """Then ``action`` is ``restore`` and says nothing: a node that is held is there. Readers that do not know this
    field see no change."""

    @model_serializer(mode="wrap")
    def _without_absent(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return present(written(self), "hold")
