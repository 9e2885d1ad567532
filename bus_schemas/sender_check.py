"""Rejects messages whose subject does not match the sender in their body.

Permissions are granted by subject, while a body can hold any name. Pure. Must never accept a body for a node,
deployment or site other than the one that its subject names.
"""

from __future__ import annotations

from bus_schemas import v1
from bus_schemas.errors import BadNameError
from bus_schemas.subjects import ParsedSubject, Subjects
from bus_schemas.v1 import Message

_PLACES: dict[type[Message], tuple[str, str, str]] = {
    v1.ScalingDecision: ("decision", "scaling", "deployment"),
    v1.PowerDecision: ("decision", "power", "node"),
    v1.ScalingAck: ("ack", "scaling", "deployment"),
    v1.PowerAck: ("ack", "power", "node"),
    v1.NodeTelemetry: ("telemetry", "node", "node"),
    v1.PlanRecord: ("telemetry", "plan", "deployment"),
    v1.BudgetChange: ("control", "budget", "site"),
    v1.DeploymentControl: ("control", "deployment", "deployment"),
    v1.NodeControl: ("control", "node", "node"),
}
"""For each message class: kind and topic of its subject, and the field that names its node, deployment or site."""
_BELONGS = {(kind, what): message for message, (kind, what, _) in _PLACES.items()}


def wrong_sender(place: ParsedSubject, message: Message) -> str:
    """Why ``message`` does not belong on the subject ``place``; empty where it does."""
    wanted = _BELONGS.get((place.kind, place.what))
    if wanted is None or type(message) is not wanted:
        return f"a {message.type} where a {wanted.type_name() if wanted else place.what} belongs"
    field = _PLACES[wanted][2]
    who = getattr(message, field)
    return "" if who == place.who else f"meant for {field} {who}, not {place.who}"


def in_place(subjects: Subjects, subject: str, message: Message) -> bool:
    """Whether ``message`` belongs on ``subject``. Messages without a node, deployment or site belong on any."""
    if type(message) not in _PLACES:
        return True
    try:
        place = subjects.parse(subject)
    except BadNameError:
        return False
    return place is not None and not wrong_sender(place, message)
