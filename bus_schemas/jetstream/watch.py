"""Follows a stream live without a consumer: the server's republished copies, checked against the stream itself.

A copy carries its stream sequence and the previous one of its subject, so a lost copy shows as a gap. What may have
been missed (after a gap, a reconnect, an overrun or a long silence) is read from the stream. Each message is yielded
once, and the messages of one subject in order.

Nothing piles up in front of a reader that falls behind: too many copies are let go, and what they held is read from the
stream later; of the nodes' readings only each node's newest is.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from bus_schemas.errors import BusAwayError
from bus_schemas.flood_gate import FloodGate
from bus_schemas.jetstream import reader
from bus_schemas.jetstream.connect import Bus
from bus_schemas.streams import PASSING, TELEMETRY, stream_of

VERIFY_S = 5.0
RETRY_S = 0.25
MOST_AHEAD = 20_000
MOST_WAITING = 4096
"""Copies that wait for a reader: of 10,000 GPUs more than three seconds of reports, in 25 MB."""


async def follow(
    bus: Bus, wildcard: str, after: int | None = None, gate: FloodGate | None = None
) -> AsyncIterator[reader.StoredMessage]:
    """Every matching message with a sequence above ``after`` (None: from now on), through restarts of the server.

    The wildcard must lie within one stream. Never ends by itself. Without the right to subscribe to the republished
    copies, the stream is read every few seconds instead. ``gate`` counts each subject's messages; of telemetry, what
    it does not admit is left out, but for the newest of a subject, which follows within seconds. To a reader that is
    more than `MOST_WAITING` messages behind, a node's newest reading is given without those before it.
    """
    follower = _Follower(bus, wildcard, gate)
    try:
        await follower.open(after)
        while True:
            async for raw in follower.news():
                found = reader.stored(raw)
                if found is not None:
                    yield found
    finally:
        await follower.close()


class _Follower:
    """``_seen``: every message up to it was yielded or does not exist; ``_ahead``: sequences yielded beyond it."""

    def __init__(self, bus: Bus, wildcard: str, gate: FloodGate | None = None) -> None:
        self._bus = bus
        self._gate = gate
        self._wildcard = wildcard
        self._waiting: deque[Msg | None] = deque()
        self._came = asyncio.Event()
        self._seen = 0
        self._ahead: set[int] = set()
        self._subscription: Subscription | None = None
        self._client: Client | None = None
        self._due = 0.0
        self._missed = True
        self._passing = stream_of(bus.subjects, wildcard) in PASSING
        """Telemetry is soon replaced by newer telemetry: without a sign of loss it is not read a second time."""
        self._readings = stream_of(bus.subjects, wildcard) == TELEMETRY
        self._newest_will_do = False
        """Whether the reader is so far behind that of what it has not seen each node's newest reading is enough."""

    def _wake(self) -> None:
        self._missed = True
        self._put(None)

    def _put(self, raw: Msg | None) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._let_go()
        self._waiting.append(raw)
        self._came.set()

    def _let_go(self) -> None:
        """The reader is far behind: what waits for it is read from the stream later."""
        self._waiting.clear()
        self._missed = True
        self._newest_will_do = self._readings
        self._waiting.append(None)

    async def open(self, after: int | None) -> None:
        self._bus.on_reconnect.add(self._wake)
        await self._subscribe()
        while after is None:
            with suppress(BusAwayError):
                after = await self._tail()
                break
            await asyncio.sleep(RETRY_S)
        self._seen = after
        self._wake()

    async def close(self) -> None:
        self._bus.on_reconnect.discard(self._wake)
        if self._subscription is not None:
            with suppress(NatsError, OSError):
                await self._subscription.unsubscribe()

    async def news(self) -> AsyncIterator[Msg]:
        """The next new messages: one republished copy, or those that a read of the stream found."""
        raw = await self._next()
        if raw is None:
            async for found in self._read_missed():
                yield found
            return
        sequence, before = reader.sequence_of(raw), _number(raw, "Nats-Last-Sequence")
        if sequence <= self._seen and sequence > before and before == 0:
            # A stream that was created again (its memory was lost) numbers from 1.
            self._missed = True
            async for found in self._read_missed():
                yield found
        if not self._is_new(sequence):
            return
        if before > self._seen and before not in self._ahead and not self._floods(raw.subject):
            self._missed = True
            async for found in self._read_missed():
                yield found
            return
        self._note(sequence)
        yield raw

    def _floods(self, subject: str) -> bool:
        """Whether messages of a subject are left out on purpose, so that a gap does not mean a loss."""
        return self._passing and self._gate is not None and self._gate.over(subject, asyncio.get_running_loop().time())

    async def _next(self) -> Msg | None:
        loop = asyncio.get_running_loop()
        while not self._waiting:
            wait_s = self._due - loop.time()
            if wait_s <= 0:
                return None
            self._came.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._came.wait()
        return self._waiting.popleft()

    def _is_new(self, sequence: int) -> bool:
        return sequence > self._seen and sequence not in self._ahead

    def _note(self, sequence: int) -> None:
        if sequence == self._seen + 1:
            self._seen = sequence
            return
        self._ahead.add(sequence)
        if len(self._ahead) > MOST_AHEAD:
            # Other subjects of the stream lie between; messages this old were verified or will not come.
            self._restart(max(self._ahead))

    async def _read_missed(self) -> AsyncIterator[Msg]:
        """All messages above ``_seen`` that were not yielded yet. Waits until the bus is connected."""
        await self._bus.ready()
        try:
            await self._subscribe()
            tail = await self._tail()
            if tail < self._seen:
                self._restart(0)
            elif self._passing and not self._missed and tail in self._ahead:
                self._restart(tail)
            self._missed = False
            while True:
                while self._newest_will_do:
                    for raw in await self._newest():
                        yield raw
                batch = await reader.next_raw(self._bus, self._wildcard, self._seen)
                for raw in self._fresh(batch):
                    yield raw
                if len(batch) < reader.BATCH:
                    break
        except (BusAwayError, NatsError, OSError):
            await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))
            self._wake()
        self._due = asyncio.get_running_loop().time() + VERIFY_S * random.uniform(0.8, 1.2)

    async def _newest(self) -> list[Msg]:
        """Each node's newest reading, where it was not yielded yet, in place of all that lies before it."""
        tail = await self._tail()
        newest = await reader.last_raw_per_subject(self._bus, self._wildcard, until_sequence=tail)
        fresh = [raw for raw in newest if self._is_new(reader.sequence_of(raw))]
        self._newest_will_do = False
        self._restart(max(self._seen, tail))
        return fresh

    def _fresh(self, batch: list[Msg]) -> Iterator[Msg]:
        for raw in batch:
            sequence = reader.sequence_of(raw)
            known = sequence in self._ahead
            self._ahead.discard(sequence)
            self._seen = max(self._seen, sequence)
            if not known:
                yield raw

    def _restart(self, seen: int) -> None:
        self._seen = seen
        self._ahead.clear()

    async def _tail(self) -> int:
        newest = await reader.last_raw(self._bus, self._wildcard)
        return reader.sequence_of(newest) if newest is not None else 0

    async def _subscribe(self) -> None:
        if self._client is self._bus.nc and self._subscription is not None:
            return
        client, gate = self._bus.nc, self._gate
        clock, passing = asyncio.get_running_loop().time, self._passing

        async def on_message(raw: Msg) -> None:
            if gate is None or gate.admits(raw.subject, clock()) or not passing:
                self._put(raw)

        with suppress(NatsError, OSError):
            options: dict[str, Any] = {"pending_bytes_limit": 256 << 20}
            subject = self._bus.subjects.stored(self._wildcard)
            self._subscription = await client.subscribe(subject, cb=on_message, **options)
            self._client = client


def _number(raw: Msg, header: str) -> int:
    try:
        return int((raw.headers or {}).get(header, "0"))
    except ValueError:
        return 0
