"""The timeline: decisions, acknowledgements and commands as one line each, without the renewals that change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bus_schemas import v1
from bus_schemas.visible_text import visible_parts
from deploy.views.budgets import command_words
from deploy.views.words import sentence

RENEWAL = "renewal"
UNSHOWN = (v1.NodeTelemetry, v1.PlanRecord, v1.Lease)
DONE = frozenset({v1.AckStatus.ACCEPTED, v1.AckStatus.APPLIED, v1.AckStatus.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """``kind``: replicas, watts or command. ``decision_id``: None for a command. ``well``: False for a failure."""

    time: datetime
    kind: str
    who: str
    text: str
    decision_id: int | None = None
    well: bool = True

    def as_json(self) -> dict[str, Any]:
        """As the page reads it; the time in milliseconds since 1970."""
        return {
            "t": milliseconds(self.time),
            "kind": self.kind,
            "who": self.who,
            "text": self.text,
            "id": self.decision_id,
            "well": self.well,
        }


def milliseconds(time: datetime) -> int:
    """Milliseconds since 1970, as JavaScript counts time."""
    return round(time.timestamp() * 1000)


def event_of(message: v1.Message) -> TimelineEvent | None:
    """The message's line; None for what the timeline does not show: renewals, and caps that were applied as decided."""
    if isinstance(message, UNSHOWN) or _is_routine(message):
        return None
    message = visible_parts(message)
    match message:
        case v1.ScalingDecision():
            return TimelineEvent(message.time, "replicas", message.deployment, sentence(message), message.decision_id)
        case v1.ScalingAck():
            well = message.status in DONE
            text, number = sentence(message), message.decision_id
            return TimelineEvent(message.time, "replicas", message.deployment, text, number, well)
        case v1.PowerDecision():
            return TimelineEvent(message.time, "watts", message.node, sentence(message), message.decision_id)
        case v1.PowerAck():
            return TimelineEvent(
                message.time, "watts", message.node, sentence(message), message.decision_id, well=False
            )
        case v1.BudgetChange():
            return TimelineEvent(
                message.time, "command", message.site, f"{message.site} budget: {command_words(message)}"
            )
        case v1.DeploymentControl():
            return TimelineEvent(message.time, "command", message.deployment, _deployment_command(message))
        case v1.NodeControl() if message.hold is None:  # a hold is written every few seconds; decisions state it
            return TimelineEvent(
                message.time, "command", message.node, f"{message.node}: {message.action}{_by(message)}"
            )
    return None


def _is_routine(message: v1.Message) -> bool:
    """Whether it is a renewal, or an answer that caps were applied as decided: a large site has hundreds a second."""
    match message:
        case v1.PowerDecision():
            return bool(message.reasons) and all(reason.code == RENEWAL for reason in message.reasons)
        case v1.PowerAck():
            return message.status in DONE
    return False


def _deployment_command(message: v1.DeploymentControl) -> str:
    counts = "".join(f" {name}={count}" for name, count in message.replicas.items())
    return f"{message.deployment}: {message.action}{counts}{_by(message)}"


def _by(message: v1.DeploymentControl | v1.NodeControl) -> str:
    who = f", by {message.issued_by}" if message.issued_by else ""
    return who + (f" ({message.reason})" if message.reason else "")
