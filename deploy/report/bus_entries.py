"""Reads the messages of a report from the streams of a running bus; creates nothing on it."""

from __future__ import annotations

from collections.abc import Sequence

from nats.aio.msg import Msg

from bus_schemas.errors import BusAwayError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import last_raw_per_subject, next_raw, raw_since, sequence_of, stored_at
from bus_schemas.streams import stream_of
from deploy.report.journal import Entry, StreamRange
from deploy.report.usage import Period

KINDS = (("decision", ""), ("ack", ""), ("control", "budget"), ("telemetry", "plan"), ("deadletter", ""))
"""What a report is made of."""
BEFORE = (("decision", "power"), ("ack", "power"), ("decision", "scaling"))
"""Of these, the last message of each subject before the period says what was in force when it began."""


async def entries(bus: Bus, period: Period) -> list[Entry]:
    """The messages that were stored in the period, and those that say what was in force when it began.

    Raises BusAwayError, NotPermittedError.
    """
    found = []
    for kind in BEFORE:
        raw = await last_raw_per_subject(bus, bus.subjects.all_of(*kind), period.since)
        found += [entry for entry in map(_entry, raw) if entry.stored_at < period.since]
    for kind in KINDS:
        found += await _within(bus, bus.subjects.all_of(*kind), period)
    return found


async def entries_of(bus: Bus, ranges: Sequence[StreamRange]) -> list[Entry]:
    """The messages of these ranges, as far as the bus still holds them. Raises BusAwayError, NotPermittedError."""
    found: list[Entry] = []
    by_stream = {one.stream: one for one in ranges}
    for kind in KINDS:
        wildcard = bus.subjects.all_of(*kind)
        known = by_stream.get(stream_of(bus.subjects, wildcard))
        after = known.first - 1 if known is not None else 0
        while known is not None and after < known.last and (page := await next_raw(bus, wildcard, after)):
            after = sequence_of(page[-1])
            found += [entry for entry in map(_entry, page) if entry.sequence <= known.last]
    return found


async def _within(bus: Bus, wildcard: str, period: Period) -> list[Entry]:
    found: list[Entry] = []
    page = await raw_since(bus, wildcard, period.since)
    while page:
        for entry in map(_entry, page):
            if entry.stored_at > period.until:
                return found
            found.append(entry)
        page = await next_raw(bus, wildcard, sequence_of(page[-1]))
    return found


def _entry(raw: Msg) -> Entry:
    headers = raw.headers or {}
    at = stored_at(headers)
    if at is None:
        raise BusAwayError(f"{raw.subject}: the server did not say when it stored a message")
    subject = headers.get("Nats-Subject", raw.subject)
    return Entry(headers.get("Nats-Stream", ""), sequence_of(raw), subject, at, raw.data)
