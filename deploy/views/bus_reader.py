"""Site views and histories read from the streams of a running bus; creates nothing on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from bus_schemas import v1
from bus_schemas.errors import BusAwayError, NotPermittedError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import StoredMessage, all_messages, last, last_per_subject, last_raw, sequence_of
from bus_schemas.jetstream.watch import follow
from bus_schemas.standing_lease import standing
from deploy.views.site_view import SiteView

WAITING = 256
PASSING = (("telemetry", "node"), ("telemetry", "plan"))
"""The kinds that are kept in memory."""
KINDS = (("decision",), ("ack",), *PASSING, ("control",))
"""The kinds that a view is made of, beside the leadership."""


async def newest(bus: Bus) -> SiteView:
    """A view of the newest message of each kind that the streams hold."""
    picture = SiteView()
    for kind in KINDS:
        for stored in await last_per_subject(bus, bus.subjects.all_of(*kind)):
            picture.add(stored.message)
    for deployment, claim in (await claims(bus)).items():
        if deployment in picture.deployments:
            picture.claimed(deployment, claim)
    await read_leadership(bus, picture)
    recent_first = sorted(picture.history, key=lambda message: message.time)
    picture.history.clear()
    picture.history.extend(recent_first)
    return picture


def watching(bus: Bus, take: Callable[[v1.Message], None]) -> dict[str, Coroutine[Any, Any, None]]:
    """Coroutines by name, until cancelled: ``take`` gets each message that a view is made of, from now on."""

    async def pass_on(wildcard: str) -> None:
        async for stored in follow(bus, wildcard, None):
            take(stored.message)

    subjects = [*(bus.subjects.all_of(*kind) for kind in KINDS), bus.subjects.lease()]
    return {f"watch {subject}": pass_on(subject) for subject in subjects}


async def read_leadership(bus: Bus, picture: SiteView) -> None:
    """Bring the lease of the leader, and the signs of planners that stand by, into the view. Raises BusAwayError."""
    if (raw := await last_raw(bus, bus.subjects.lease())) is not None:
        found = standing(sequence_of(raw), raw.headers or {}, raw.data)
        picture.lease_flaw = "" if found.free or found.expires else found.flaw_text()
        if found.lease is not None and not picture.lease_flaw:
            picture.add(found.lease)
    for sign in await all_messages(bus, bus.subjects.standby()):
        if isinstance(sign.message, v1.Lease):
            picture.standby[sign.message.holder] = sign.message


async def claims(bus: Bus) -> dict[str, v1.Lease]:
    """The claims of connectors, by deployment. Raises BusAwayError, NotPermittedError."""
    found = {}
    for stored in await last_per_subject(bus, bus.subjects.all_claims()):
        about = bus.subjects.parse(stored.subject)
        if about is not None and about.what == "deployment" and isinstance(stored.message, v1.Lease):
            found[about.who] = stored.message
    return found


async def names(bus: Bus) -> SiteView:
    """A view that is enough to know names by: decisions outlive a restart of the server, telemetry may be gone."""
    picture = SiteView()
    for kind in (("decision",), ("ack",), *PASSING):
        try:
            found = await last_per_subject(bus, bus.subjects.all_of(*kind))
        except NotPermittedError:
            raise
        except BusAwayError:
            if kind not in PASSING:
                raise
            continue
        for stored in found:
            picture.add(stored.message)
    return picture


async def budget_commands(bus: Bus) -> list[v1.BudgetChange]:
    """Every budget command that the streams hold, oldest first."""
    found = await all_messages(bus, bus.subjects.all_of("control", "budget"))
    return [stored.message for stored in found if isinstance(stored.message, v1.BudgetChange)]


async def recent(bus: Bus, count: int) -> list[v1.Message]:
    """The last ``count`` decisions and acknowledgements, oldest first."""
    found: list[StoredMessage] = []
    for kind in ("decision", "ack"):
        found += (await all_messages(bus, bus.subjects.all_of(kind)))[-count:]
    messages = sorted((stored.message for stored in found), key=lambda message: message.time)
    return messages[-count:]


async def following(bus: Bus, count: int) -> AsyncIterator[v1.Message]:
    """The last ``count`` decisions and acknowledgements, then every new one, without end."""
    ends = {}
    for kind in ("decision", "ack"):
        wildcard = bus.subjects.all_of(kind)
        ends[wildcard] = max((stored.sequence for stored in await last_per_subject(bus, wildcard)), default=0)
    for message in await recent(bus, count):
        yield message
    queue: asyncio.Queue[v1.Message] = asyncio.Queue(maxsize=WAITING)

    async def pour(wildcard: str) -> None:
        async for stored in follow(bus, wildcard, ends[wildcard]):
            await queue.put(stored.message)

    pourers = [asyncio.create_task(pour(wildcard)) for wildcard in ends]
    try:
        while True:
            yield await queue.get()
    finally:
        for task in pourers:
            task.cancel()
        await asyncio.gather(*pourers, return_exceptions=True)


async def story(
    bus: Bus, deployment: str, decision_id: int | None
) -> tuple[v1.PlanRecord | None, v1.ScalingDecision | None, v1.ScalingAck | None]:
    """The plan record, decision and acknowledgement of one decision (None: the newest) of a deployment."""
    subjects = bus.subjects
    decisions = [
        stored.message
        for stored in await all_messages(bus, subjects.decision_scaling(deployment))
        if isinstance(stored.message, v1.ScalingDecision)
    ]
    records = [
        stored.message
        for stored in await all_messages(bus, subjects.telemetry_plan(deployment))
        if isinstance(stored.message, v1.PlanRecord)
    ]
    decision = _pick(decisions, decision_id)
    record = _record_of(records, decision if decision_id is not None else None, decision_id)
    return record, decision, await _ack_of(bus, subjects.ack_scaling(deployment), decision)


def _pick(decisions: list[v1.ScalingDecision], decision_id: int | None) -> v1.ScalingDecision | None:
    if decision_id is None:
        return decisions[-1] if decisions else None
    return next((decision for decision in reversed(decisions) if decision.decision_id == decision_id), None)


def _record_of(
    records: list[v1.PlanRecord], decision: v1.ScalingDecision | None, decision_id: int | None
) -> v1.PlanRecord | None:
    """The record of the tick that made the decision: the first with its id; without an id, the newest record."""
    if decision_id is None:
        return records[-1] if records else None
    return next((record for record in records if record.decision_id == decision_id), None)


async def _ack_of(bus: Bus, subject: str, decision: v1.ScalingDecision | None) -> v1.ScalingAck | None:
    if decision is None:
        found = await last(bus, subject)
        return found.message if found and isinstance(found.message, v1.ScalingAck) else None
    acks = [stored.message for stored in await all_messages(bus, subject) if isinstance(stored.message, v1.ScalingAck)]
    own = [ack for ack in acks if ack.decision_id == decision.decision_id]
    return own[-1] if own else None
