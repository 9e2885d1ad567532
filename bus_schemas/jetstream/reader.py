"""Reads the streams: the last message of one subject, the last of each of many, or a range of messages.

Creates nothing on the server and needs only direct get, so an observer's rights are enough. A body that cannot be
decoded is left out: a bad message must not stop its readers.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from bus_schemas import codec
from bus_schemas.errors import BusAwayError, UndecodableError
from bus_schemas.flood_gate import FloodGate
from bus_schemas.jetstream.api import ask, error_of, no_service, package_errors, served, stream_info
from bus_schemas.jetstream.connect import Bus
from bus_schemas.streams import stream_of
from bus_schemas.v1 import Message

BATCH = 256
MOST_SUBJECTS = 1000
"""Subjects that one multi-get may match; the server refuses more than 1,024."""
_log = logging.getLogger(__name__)
_unreadable = FloodGate(per_s=1 / 60, burst=3.0)
"""Lets the log have a few lines of a subject, and then one a minute."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A decoded message of a stream, with its subject, stream sequence and id."""

    subject: str
    sequence: int
    message: Message
    msg_id: str
    traceparent: str | None = None
    """The W3C trace context in its headers."""
    stored_at: datetime | None = None
    """When the server stored it, by the server's clock; None for a republished copy, which does not state it."""


async def last(bus: Bus, subject: str) -> StoredMessage | None:
    """The last message of a subject (or wildcard); None where there is none or its body cannot be decoded.

    Raises BusAwayError, NotPermittedError.
    """
    found = await last_raw(bus, subject)
    return stored(found) if found is not None else None


async def last_raw(bus: Bus, subject: str) -> Msg | None:
    """The last message of a subject (or wildcard) with its headers, not decoded; None where there is none.

    Raises BusAwayError, NotPermittedError.
    """
    api = f"$JS.API.DIRECT.GET.{stream_of(bus.subjects, subject)}"
    if "*" in subject or ">" in subject:
        found = await ask(bus, api, json.dumps({"last_by_subj": subject}).encode())
    else:
        # The subject is part of the request's subject, so permissions can be granted by subject.
        found = await ask(bus, f"{api}.{subject}")
    status = (found.headers or {}).get("Status")
    if status is None:
        return found
    if status == "404":
        return None
    raise BusAwayError(f"{subject}: the server answered {status}")


async def stored_id(bus: Bus, subject: str) -> str | None:
    """The id of the last message of ``subject``, or None. Raises BusAwayError, NotPermittedError."""
    found = await last_raw(bus, subject)
    return message_id(found.headers) if found is not None else None


def message_id(headers: Mapping[str, str] | None) -> str:
    """The id under which a message was published; empty where the headers hold none."""
    found = headers or {}
    return found.get("ce-id") or found.get("Nats-Msg-Id", "")


async def last_per_subject(bus: Bus, wildcard: str) -> list[StoredMessage]:
    """The last readable message of every subject that matches, oldest first: one that cannot be decoded hides none.

    Raises BusAwayError, NotPermittedError.
    """
    found = await last_raw_per_subject(bus, wildcard)
    kept = []
    for raw in found:
        one = stored(raw)
        if one is None:
            before = await all_messages(bus, (raw.headers or {}).get("Nats-Subject", raw.subject))
            one = before[-1] if before else None
        if one is not None:
            kept.append(one)
    return sorted(kept, key=lambda one: one.sequence)


async def last_raw_of(bus: Bus, subjects: Sequence[str]) -> list[Msg]:
    """The last message of each of up to `MOST_SUBJECTS` subjects of one stream, not decoded. Those without one are left
    out. Raises BusAwayError, NotPermittedError.
    """
    if not subjects:
        return []
    return await _batched(bus, subjects[0], {"batch": MOST_SUBJECTS, "multi_last": list(subjects)})


async def last_raw_per_subject(
    bus: Bus, wildcard: str, until: datetime | None = None, until_sequence: int | None = None
) -> list[Msg]:
    """The last message of every subject that matches, not decoded; with ``until`` or ``until_sequence`` the last that
    was stored by then.

    Raises BusAwayError, NotPermittedError.
    """
    query: dict[str, Any] = {"batch": MOST_SUBJECTS}
    if until is not None:
        query["up_to_time"] = until.astimezone(UTC).isoformat()
    if until_sequence is not None:
        query["up_to_seq"] = until_sequence
    try:
        return await _batched(bus, wildcard, query | {"multi_last": [wildcard]})
    except _TooManyError:
        found = []
        subjects = await subjects_of(bus, wildcard)
        for start in range(0, len(subjects), MOST_SUBJECTS):
            some = subjects[start : start + MOST_SUBJECTS]
            found += await _batched(bus, wildcard, query | {"multi_last": list(some)})
        return found


async def next_messages(bus: Bus, wildcard: str, after: int, count: int = BATCH) -> list[StoredMessage]:
    """Up to ``count`` matching messages with sequences above ``after``, in order. Empty only at the end of the stream.

    Raises BusAwayError, NotPermittedError.
    """
    while True:
        raw = await next_raw(bus, wildcard, after, count)
        kept = [one for one in map(stored, raw) if one is not None]
        if kept or not raw:
            return kept
        after = sequence_of(raw[-1])


async def next_raw(bus: Bus, wildcard: str, after: int, count: int = BATCH) -> list[Msg]:
    """`next_messages` without decoding, so that a reader also gets past messages that cannot be decoded."""
    return await _batched(bus, wildcard, {"seq": after + 1, "next_by_subj": wildcard, "batch": count})


async def raw_since(bus: Bus, wildcard: str, since: datetime) -> list[Msg]:
    """Up to `BATCH` matching messages that the server stored at ``since`` or later, oldest first, not decoded.

    Raises BusAwayError, NotPermittedError.
    """
    start = since.astimezone(UTC).isoformat()
    return await _batched(bus, wildcard, {"start_time": start, "next_by_subj": wildcard, "batch": BATCH})


async def messages_from(
    bus: Bus, wildcard: str, since: datetime | None, most: int, *, until: datetime | None = None
) -> list[StoredMessage]:
    """The first ``most`` readable messages that match, stored from ``since`` (None: from the first) to ``until``.

    Raises BusAwayError, NotPermittedError.
    """
    found: list[StoredMessage] = []
    raw = await (next_raw(bus, wildcard, 0) if since is None else raw_since(bus, wildcard, since))
    while len(found) < most:
        kept = [one for one in map(stored, raw) if one is not None]
        inside = [one for one in kept if until is None or one.stored_at is None or one.stored_at <= until]
        found += inside
        if len(raw) < BATCH or len(inside) < len(kept):
            break
        raw = await next_raw(bus, wildcard, sequence_of(raw[-1]))
    return found[:most]


class _TooManyError(Exception):
    pass


async def subjects_of(bus: Bus, wildcard: str) -> Sequence[str]:
    """The subjects that match and hold messages, sorted. Raises BusAwayError, NotPermittedError."""
    stream, found = stream_of(bus.subjects, wildcard), dict[str, int]()
    while True:
        query = {"subjects_filter": wildcard, "offset": len(found)}
        value = await stream_info(bus, stream, json.dumps(query).encode())
        if (problem := error_of(value)) is not None:
            raise BusAwayError(f"{stream}: {problem.text}")
        more = value.get("state", {}).get("subjects") or {}
        found |= more
        if not more or len(found) >= value.get("total", 0):
            return sorted(found)


async def _batched(bus: Bus, wildcard: str, query: dict[str, Any]) -> list[Msg]:
    """The replies to one direct get for many messages, which an empty reply ends.

    Raises BusAwayError, NotPermittedError, _TooManyError.
    """
    return await served(bus, lambda: _batch(bus, wildcard, query))


async def _batch(bus: Bus, wildcard: str, query: dict[str, Any]) -> list[Msg]:
    api, inbox = f"$JS.API.DIRECT.GET.{stream_of(bus.subjects, wildcard)}", bus.nc.new_inbox()
    found: list[Msg] = []
    with package_errors(bus, api):
        subscription = await bus.nc.subscribe(inbox)
        try:
            await bus.nc.publish(api, json.dumps(query).encode(), reply=inbox)
            while not _ends(wildcard, message := await subscription.next_msg(timeout=bus.settings.request_timeout_s)):
                found.append(message)
        finally:
            with suppress(NatsError, OSError):
                await subscription.unsubscribe()
    return found


def _ends(wildcard: str, reply: Msg) -> bool:
    """Whether ``reply`` ends the answers to a direct get. Raises BusAwayError or _TooManyError for another status."""
    status = (reply.headers or {}).get("Status")
    if status is None:
        return False
    if status in ("204", "404"):
        return True
    if status == "413":
        raise _TooManyError
    if status == "503":
        raise no_service(wildcard)
    raise BusAwayError(f"{wildcard}: the server answered {status}")


def sequence_of(raw: Msg) -> int:
    """The stream sequence of a message from direct get or of a republished copy; 0 without one."""
    try:
        return int((raw.headers or {}).get("Nats-Sequence", "0"))
    except ValueError:
        return 0


def stored(raw: Msg) -> StoredMessage | None:
    """The decoded message, or None and a line in the log where the body cannot be decoded."""
    headers = raw.headers or {}
    subject = headers.get("Nats-Subject", raw.subject)
    try:
        message = codec.decode(raw.data)
    except UndecodableError as error:
        if _unreadable.admits(subject, time.monotonic()):
            _log.warning(
                "unreadable message %s on %s left out: %s", headers.get("Nats-Sequence"), subject, error.reason
            )
        return None
    trace = codec.traceparent_of(headers)
    return StoredMessage(subject, sequence_of(raw), message, message_id(headers), trace, stored_at(headers))


def stored_at(headers: Mapping[str, str]) -> datetime | None:
    """When the server stored the message with these headers, by its clock; None where they do not state it."""
    try:
        return datetime.fromisoformat(headers["Nats-Time-Stamp"])
    except (KeyError, ValueError):
        return None


async def all_messages(bus: Bus, wildcard: str, after: int = 0) -> list[StoredMessage]:
    """Every message that matches, with a sequence above ``after``, in order. Raises BusAwayError."""
    found: list[StoredMessage] = []
    while True:
        more = await next_messages(bus, wildcard, found[-1].sequence if found else after)
        found += more
        if not more:
            return found
