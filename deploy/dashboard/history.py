"""The past of a bus, read from its streams when a viewer asks: series, a decision's explanation, what happened when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import StoredMessage, last_per_subject, messages_from
from bus_schemas.visible_text import visible_parts
from deploy.dashboard.points import deployment_point, site_point
from deploy.dashboard.timeline import TimelineEvent, event_of
from deploy.views.bus_reader import story
from deploy.views.explain import explain
from deploy.views.freshness import CLOCKS_APART_S
from deploy.views.kept_records import RECORDS_LAST, RECORDS_OF_EACH
from deploy.views.site_view import SiteView
from deploy.views.words import clock, sentence

MOST_RECORDS = 1000
"""Of one deployment; the stream itself keeps fewer."""
MOST_MESSAGES = 2000
"""Read of one kind for one answer."""
CLOCKS_APART = timedelta(seconds=CLOCKS_APART_S)
TIMELINE_KINDS = (("decision", "scaling"), ("ack", "scaling"), ("control",), ("decision", "power"), ("ack", "power"))
NO_RECORD = f"records are kept for {RECORDS_LAST}, and only {RECORDS_OF_EACH}"


def no_record(decision_id: int | None, who: str) -> str:
    """That the bus does not hold what would explain a decision (None: the newest), and how long it does."""
    what = "a decision" if decision_id is None else f"decision #{decision_id}"
    return f"no record of {what} of {who} on this bus; {NO_RECORD}"


async def series(bus: Bus, deployment: str, since: datetime, picture: SiteView) -> dict[str, Any]:
    """The points of a deployment and of its site that the bus still holds. Raises BusError."""
    subject = bus.subjects.telemetry_plan(deployment)
    found = await messages_from(bus, subject, since, MOST_RECORDS)
    view = picture.deployments.get(deployment)
    pools = view.decision.pools if view is not None and view.decision is not None else {}
    gpus = {name: target.gpus_per_replica for name, target in pools.items()}
    own, watts = [], []
    for stored in found:
        if isinstance(stored.message, v1.PlanRecord):
            own.append(deployment_point(visible_parts(stored.message), gpus))
            watts.append(site_point(stored.message))
    return {"deployment": own, "site": watts}


@dataclass(frozen=True, slots=True)
class Happenings:
    """Lines of the timeline, oldest first. ``complete``: whether these are all of the period."""

    events: list[TimelineEvent]
    complete: bool


async def happenings(
    bus: Bus, begin: datetime, end: datetime, most: int, *, watts_since: datetime | None = None
) -> Happenings:
    """The newest ``most`` lines of each kind between two instants; those about watts only from ``watts_since`` on.

    Raises BusError.
    """
    found: list[StoredMessage] = []
    complete = True
    for kind in TIMELINE_KINDS:
        start = watts_since if watts_since is not None and kind[-1] == "power" else begin
        some = await messages_from(bus, bus.subjects.all_of(*kind), start, MOST_MESSAGES, until=end + CLOCKS_APART)
        complete = complete and len(some) < MOST_MESSAGES
        found += some
    kinds: dict[str, list[TimelineEvent]] = {}
    for event in filter(None, (event_of(one.message) for one in found)):
        # The streams are read by the server's times, and people go by the times that are shown.
        if begin <= event.time <= end:
            kinds.setdefault(event.kind, []).append(event)
    complete = complete and all(len(events) <= most for events in kinds.values())
    shown = [event for events in kinds.values() for event in sorted(events, key=lambda one: one.time)[-most:]]
    return Happenings(sorted(shown, key=lambda event: event.time), complete)


async def explained(bus: Bus, deployment: str, decision_id: int | None, now: datetime) -> str | None:
    """What ``wattscale explain`` prints; None where the bus holds no record of it. Raises BusError."""
    record, decision, ack = await story(bus, deployment, decision_id)
    return None if record is None else explain(record, decision, ack, now)


async def power_explained(bus: Bus, node: str, decision_id: int) -> str | None:
    """A node's decision with all its reasons and caps, and its answers; None where the bus does not hold it."""
    subjects = bus.subjects
    decisions, acks = await asyncio.gather(
        all_of_subject(bus, subjects.decision_power(node)), all_of_subject(bus, subjects.ack_power(node))
    )
    decision = next(
        (m for m in reversed(decisions) if isinstance(m, v1.PowerDecision) and m.decision_id == decision_id), None
    )
    if decision is None:
        return None
    lines = [f"{clock(decision)} UTC {sentence(decision)}"]
    lines += [f"    {reason.code}: {reason.text}" for reason in decision.reasons]
    lines += ["caps"]
    lines += [
        f"    {cap.gpu}: {cap.cap_watts:.0f} W; not renewed for {decision.valid_for_s:g} s, {cap.fallback_watts:.0f} W"
        for cap in decision.caps
    ]
    answers = [m for m in acks if isinstance(m, v1.PowerAck) and m.decision_id == decision_id]
    lines += ["acknowledged", *(f"    {clock(one)} UTC {sentence(one)}" for one in answers)]
    return "\n".join(lines if answers else [*lines, "    not yet"])


async def all_of_subject(bus: Bus, subject: str) -> list[v1.Message]:
    """Every message of one subject, texts made visible. Raises BusError."""
    found = await messages_from(bus, subject, None, MOST_MESSAGES)
    return [visible_parts(stored.message) for stored in found]


async def newest_of(bus: Bus, *kind: str) -> tuple[list[StoredMessage], int]:
    """The newest message of every subject of a kind, and the sequence after which to follow. Raises BusError."""
    found = await last_per_subject(bus, bus.subjects.all_of(*kind))
    return found, max((stored.sequence for stored in found), default=0)
