"""Publishing: fenced atomic batches for the leading planner, single stored messages for all others.

Must never store a decision of a planner that no longer leads: each batch names its lease, and the server checks it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nats.errors import Error as NatsError

from bus_schemas import codec
from bus_schemas.errors import BusAwayError, FenceRefusedError, NotPermittedError, NotStoredError
from bus_schemas.jetstream.api import WRONG_LAST_SEQUENCE, Refusal, answer, ask, away, error_of
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import stored_id
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.v1 import Message

if TYPE_CHECKING:
    # An agent publishes without leading: it does not load what a leader needs.
    from bus_schemas.jetstream.leader_election import Leadership

__all__ = ["FenceRefusedError", "NotStoredError", "Outgoing", "Publisher", "publish"]

MAX_BATCH = 1000
DUPLICATE_IN_BATCH = 10201
FIRST_BACKOFF_S = 0.05
LAST_BACKOFF_S = 1.0
PATIENCE = 3.0
"""Request time-outs that one message may take in total, retries included."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to store. ``msg_id`` stays the same on retries and is never used for another message."""

    subject: str
    message: Message
    msg_id: str
    traceparent: str | None = None


async def publish(bus: Bus, subject: str, message: Message, msg_id: str, traceparent: str | None = None) -> int:
    """Store one message without a fence and return its stream sequence. Retries with the same id.

    Raises NotStoredError.
    """
    body, headers = _ready(bus, message), codec.headers(message, msg_id, bus.settings.name, traceparent)
    tries = _Tries(bus, subject)
    while True:
        try:
            value = answer(await ask(bus, subject, body, headers))
        except NotPermittedError as error:
            raise NotStoredError(f"{subject}: not permitted: {error}") from error
        except BusAwayError as error:
            await tries.again(error)
            continue
        problem = error_of(value)
        if problem is None and "seq" in value:
            return int(value["seq"])
        if problem is not None and not problem.passing:
            raise NotStoredError(f"{subject}: {problem.text}", problem.code)
        await tries.again(
            NotStoredError(problem.text, problem.code)
            if problem
            else NotStoredError("the reply is not one of JetStream")
        )


class Publisher:
    """Publishes batches fenced by the lease sequence: the server refuses a batch under an outdated lease."""

    def __init__(self, bus: Bus, leadership: Leadership) -> None:
        self._bus = bus
        self._leadership = leadership

    async def publish_batch(self, items: Sequence[Outgoing]) -> Sequence[int]:
        """Store ``items`` in order, all or none. More than 1,000 go out in several batches, so put lowers first.

        Returns their stream sequences; an empty sequence where the answer to one of the batches was lost.

        Raises FenceRefusedError or LeadershipLostError (step down at once: nothing more is published), or
        NotStoredError (the same items with the same ids may be tried again).
        """
        found: list[int] = []
        for start in range(0, len(items), MAX_BATCH):
            last = await self._store(batch := _Batch(self._bus, items[start : start + MAX_BATCH]))
            # The messages of a batch stand side by side in the stream.
            found += [] if last is None else range(last + 1 - len(batch.items), last + 1)
        return found if len(found) == len(items) else ()

    async def _store(self, batch: _Batch) -> int | None:
        """Store a batch; the sequence of its last message, or None where the answer was lost."""
        tries = _Tries(self._bus, batch.last.subject)
        in_doubt = False
        while True:
            try:
                # The lock is released between tries: renewals go on, and a lost answer does not cost the lease.
                async with self._leadership.steady() as fence:
                    value = await batch.send(fence)
                    problem = error_of(value)
                    if problem is None and "seq" in value:
                        return int(value["seq"])
                    refusal = problem or Refusal(0, "the reply is not one of JetStream", passing=True)
                    if refusal.code in (WRONG_LAST_SEQUENCE, DUPLICATE_IN_BATCH) and await batch.landed():
                        return None
                    if refusal.code == WRONG_LAST_SEQUENCE:
                        why = f"the server refused a batch under lease {fence}: {refusal.text}"
                        raise FenceRefusedError(self._leadership.lose(why))
            except NotPermittedError as error:
                raise NotStoredError(f"{batch.last.subject}: not permitted: {error}") from error
            except BusAwayError as error:
                in_doubt = True
                await tries.again(error)
                if await batch.landed_if_known():
                    return None
                continue
            if refusal.code == DUPLICATE_IN_BATCH and not in_doubt:
                raise NotStoredError(
                    f"an id of this batch was used before: {batch.last.msg_id} or another", refusal.code
                )
            if not refusal.passing:
                raise NotStoredError(f"batch of {len(batch.items)}: {refusal.text}", refusal.code)
            await tries.again(NotStoredError(refusal.text, refusal.code))


class _Batch:
    """Messages that are stored together or not at all."""

    def __init__(self, bus: Bus, items: Sequence[Outgoing]) -> None:
        self._bus = bus
        self.items = items
        self.last = items[-1]
        source = bus.settings.name
        self._wire = [
            (
                item.subject,
                _ready(bus, item.message),
                codec.headers(item.message, item.msg_id, source, item.traceparent),
            )
            for item in items
        ]

    async def send(self, fence: int) -> dict[str, Any]:
        """Send once and return the server's reply to the commit. Raises BusAwayError."""
        lease, batch = self._bus.subjects.lease(), uuid.uuid4().hex
        if not self._bus.nc.is_connected:
            raise BusAwayError(f"{self.last.subject}: not connected")
        fenced = {
            "Nats-Expected-Last-Subject-Sequence": str(fence),
            "Nats-Expected-Last-Subject-Sequence-Subject": lease,
        }
        if len(self._wire) == 1:
            # One message needs no batch: the server stages a batch in files, at many times the cost of one message.
            subject, body, headers = self._wire[0]
            return answer(await ask(self._bus, subject, body, headers | fenced))
        for position, (subject, body, own) in enumerate(self._wire, start=1):
            headers = own | fenced | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(position)}
            if position == len(self._wire):
                return answer(await ask(self._bus, subject, body, headers | {"Nats-Batch-Commit": "1"}))
            try:
                await self._bus.nc.publish(subject, body, headers=headers)
            except (NatsError, OSError) as error:
                raise away(self._bus, subject, error) from error
        return {}

    async def landed(self) -> bool:
        """Whether an earlier try, whose answer was lost, was stored. Raises BusAwayError."""
        return await stored_id(self._bus, self.last.subject) == self.last.msg_id

    async def landed_if_known(self) -> bool:
        """`landed`, or False where the bus is away."""
        try:
            return await self.landed()
        except BusAwayError:
            return False


class _Tries:
    """The pauses between tries of one message, and their time limit."""

    def __init__(self, bus: Bus, what: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._what = what
        self._until_s = self._loop.time() + PATIENCE * bus.settings.request_timeout_s
        self._backoff = Backoff(FIRST_BACKOFF_S, LAST_BACKOFF_S)

    async def again(self, error: Exception) -> None:
        """Pause before the next try. Raises NotStoredError where the time limit would pass."""
        pause_s = self._backoff.next_s()
        if self._loop.time() + pause_s > self._until_s:
            raise NotStoredError(f"{self._what}: {error}") from error
        await asyncio.sleep(pause_s)


def _ready(bus: Bus, message: Message) -> bytes:
    """The encoded body. Raises NotStoredError for one above the server's size limit."""
    body = codec.encode(message)
    # The client learns the server's limit when it connects.
    most = min(codec.MAX_BODY_BYTES, bus.nc.max_payload or codec.MAX_BODY_BYTES)
    if len(body) > most:
        raise NotStoredError(f"{message.type} of {len(body)} bytes: the limit is {most}")
    return body
