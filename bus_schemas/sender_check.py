"""Whether a message may stand where it was found: permissions are by subject, and a body can say any name.

Pure. Must never let a body speak for another node, deployment or site than the one its writer may publish for.
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
"""By message: the kind of its subject, what it is about, and the field that names who."""
_BELONGS = {(kind, what): message for message, (kind, what, _) in _PLACES.items()}


def wrong_sender(place: ParsedSubject, message: Message) -> str:
    """Why ``message`` may not stand at ``place``; empty where it may."""
    wanted = _BELONGS.get((place.kind, place.what))
    if wanted is None or type(message) is not wanted:
        return f"a {message.type} where a {wanted.type_name() if wanted else place.what} belongs"
    field = _PLACES[wanted][2]
    who = getattr(message, field)
    return "" if who == place.who else f"meant for {field} {who}, not {place.who}"


def in_place(subjects: Subjects, subject: str, message: Message) -> bool:
    """Whether ``message`` speaks for the one that ``subject`` names. Messages that name nobody may stand anywhere."""
    if type(message) not in _PLACES:
        return True
    try:
        place = subjects.parse(subject)
    except BadNameError:
        return False
    return place is not None and not wrong_sender(place, message)
