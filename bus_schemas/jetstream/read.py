"""Reading the streams without creating consumers: the last message of a subject, of many, and what follows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from bus_schemas import codec
from bus_schemas.jetstream.connect import Bus
from bus_schemas.streams import stream_of
from bus_schemas.v1 import Message

BATCH = 256
RECHECK_S = 2.0
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a stream holds it."""

    subject: str
    sequence: int
    message: Message
    msg_id: str


async def last(bus: Bus, subject: str) -> Stored | None:
    """The last message of one subject, or None. A body that can not be read counts as none."""
    try:
        raw = await bus.js.get_last_msg(stream_of(bus.subjects, subject), subject, direct=True)
    except NotFoundError:
        return None
    try:
        message = codec.decode(raw.data or b"")
    except codec.Undecodable:
        return None
    headers = raw.headers or {}
    return Stored(raw.subject or subject, raw.seq or 0, message, headers.get("ce-id", ""))


async def stored_id(bus: Bus, subject: str) -> str | None:
    """The id of the last message of ``subject``, or None."""
    found = await last(bus, subject)
    return found.msg_id if found else None


async def last_per_subject(bus: Bus, wildcard: str) -> list[Stored]:
    """The last message of every subject that matches, oldest first."""
    return await _batched(bus, wildcard, {"multi_last": [wildcard], "batch": 100_000})


async def _batched(bus: Bus, wildcard: str, query: dict[str, Any]) -> list[Stored]:
    """One direct get that answers with many messages and ends with an empty one. Raises TimeoutError."""
    nc = bus.nc
    inbox = nc.new_inbox()
    subscription = await nc.subscribe(inbox)
    found: list[Stored] = []
    try:
        api = f"$JS.API.DIRECT.GET.{stream_of(bus.subjects, wildcard)}"
        await nc.publish(api, json.dumps(query).encode(), reply=inbox)
        while True:
            message = await subscription.next_msg(timeout=bus.settings.request_timeout_s)
            if _ends(message):
                return found
            stored = _stored(message)
            if stored is not None:
                found.append(stored)
    finally:
        await subscription.unsubscribe()


def _ends(message: Msg) -> bool:
    status = (message.headers or {}).get("Status")
    return status is not None


def _stored(message: Msg) -> Stored | None:
    headers = message.headers or {}
    try:
        body = codec.decode(message.data)
    except codec.Undecodable:
        return None
    return Stored(
        headers.get("Nats-Subject", ""), int(headers.get("Nats-Sequence", "0")), body, headers.get("ce-id", "")
    )


async def next_messages(bus: Bus, wildcard: str, after: int, count: int = BATCH) -> list[Stored]:
    """Up to ``count`` messages that match, with sequences above ``after``, in order."""
    return await _batched(bus, wildcard, {"seq": after + 1, "next_by_subj": wildcard, "batch": count})


async def follow(bus: Bus, wildcard: str, after: int | None = None) -> AsyncIterator[Stored]:
    """Every message that matches from sequence ``after`` on (None: from now), in order, once, through restarts.

    Needs no consumer: a plain subscription wakes it, and the stream itself is read.
    """
    wake = asyncio.Event()

    async def on_message(_: Msg) -> None:
        wake.set()

    subscription = await bus.nc.subscribe(wildcard, cb=on_message)
    try:
        if after is None:
            after = await _end_of(bus, wildcard)
        while True:
            wake.clear()
            try:
                batch = await next_messages(bus, wildcard, after)
            except (NatsError, TimeoutError, OSError):
                await asyncio.sleep(RETRY_S)
                continue
            for stored in batch:
                after = max(after, stored.sequence)
                yield stored
            if not batch:
                try:
                    # A wake-up can be lost with a connection: look again after a while in any case.
                    await asyncio.wait_for(wake.wait(), RECHECK_S)
                except TimeoutError:
                    continue
    finally:
        await subscription.unsubscribe()


async def _end_of(bus: Bus, wildcard: str) -> int:
    while True:
        try:
            newest = await last_per_subject(bus, wildcard)
        except (NatsError, TimeoutError, OSError):
            await asyncio.sleep(RETRY_S)
            continue
        return max((stored.sequence for stored in newest), default=0)
