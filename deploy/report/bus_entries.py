"""Reads the messages of a report from the streams of a running bus; creates nothing on it."""

from __future__ import annotations

from collections.abc import Mapping

from nats.aio.msg import Msg

from bus_schemas.errors import BusAwayError
from bus_schemas.jetstream.api import error_of, stream_info
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import last_raw_per_subject, next_raw, raw_since, sequence_of, stored_at
from bus_schemas.streams import stream_of
from deploy.report.journal import Entry
from deploy.report.usage import Period

KINDS = (("decision", ""), ("ack", ""), ("control", ""), ("telemetry", "plan"), ("deadletter", ""))
"""What a report is made of."""
BEFORE = (("decision", "power"), ("ack", "power"), ("decision", "scaling"))
"""Of these, the last message of each subject before the period says what was in force when it began."""


async def entries(bus: Bus, period: Period) -> list[Entry]:
    """The messages that were stored in the period, and those that say what was in force when it began.

    Raises BusAwayError, NotPermittedError.
    """
    made = await streams_made(bus)
    found = []
    for kind in BEFORE:
        raw = await last_raw_per_subject(bus, bus.subjects.all_of(*kind), period.since)
        found += [one for one in (entry_of(each, made) for each in raw) if one.stored_at < period.since]
    for kind in KINDS:
        found += await _within(bus, bus.subjects.all_of(*kind), period, made)
    return found


async def streams_made(bus: Bus) -> dict[str, str]:
    """When each stream was made, as the server states it, by name. Raises BusAwayError, NotPermittedError."""
    made = {}
    for kind in KINDS:
        name = stream_of(bus.subjects, bus.subjects.all_of(*kind))
        value = await stream_info(bus, name)
        if (refusal := error_of(value)) is not None:
            raise BusAwayError(f"{name}: {refusal.text}")
        made[name] = str(value.get("created", ""))
    return made


async def _within(bus: Bus, wildcard: str, period: Period, made: Mapping[str, str]) -> list[Entry]:
    found: list[Entry] = []
    page = await raw_since(bus, wildcard, period.since)
    while page:
        for entry in (entry_of(each, made) for each in page):
            if entry.stored_at > period.until:
                return found
            found.append(entry)
        page = await next_raw(bus, wildcard, sequence_of(page[-1]))
    return found


def entry_of(raw: Msg, made: Mapping[str, str]) -> Entry:
    """A message as the server stored it. Raises BusAwayError where it does not say when."""
    headers = raw.headers or {}
    at = stored_at(headers)
    if at is None:
        raise BusAwayError(f"{raw.subject}: the server did not say when it stored a message")
    subject, stream = headers.get("Nats-Subject", raw.subject), headers.get("Nats-Stream", "")
    return Entry(stream, sequence_of(raw), subject, at, raw.data, made.get(stream, ""))
