"""Control: what operators, schedules and grid signals tell planners."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bus_schemas.v1.message import Message, Name, Time, Watts


class BudgetChange(Message):
    """A site's new budget. Reached ``ramp_s`` seconds after ``effective_from``; lapses at ``effective_until``.

    The newest that has begun and not lapsed decides; what lapses lets the one before it show again.
    """

    type: Literal["wattscale.v1.budget_change"] = "wattscale.v1.budget_change"
    site: Name
    budget_watts: Watts
    effective_from: Time | None = None
    """Absent: at once."""
    effective_until: Time | None = None
    """Absent: until the next change."""
    release: bool = False
    """Back to the planner's configuration and schedule; ``budget_watts`` is for readers that do not know this field."""
    ramp_s: float = Field(default=0.0, ge=0)
    reason: str = ""
    issued_by: str = ""


class DeploymentControl(Message):
    """Pause or resume a deployment's scaling, pin its replicas, or release the pin."""

    type: Literal["wattscale.v1.deployment_control"] = "wattscale.v1.deployment_control"
    deployment: Name
    action: Literal["pause", "resume", "pin", "release"]
    replicas: dict[str, int] = Field(default_factory=dict)
    """With ``pin``: replicas by pool."""
    reason: str = ""
    issued_by: str = ""


class NodeControl(Message):
    """An operator's recorded word that a node is gone (powered off, removed): its charge may be dropped."""

    type: Literal["wattscale.v1.node_control"] = "wattscale.v1.node_control"
    node: Name
    action: Literal["remove", "restore"]
    reason: str = ""
    issued_by: str = ""
