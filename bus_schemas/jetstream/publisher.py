"""Publishing: fenced atomic batches for the leading planner, plain stored messages for everyone else.

Must never store a decision of a planner that leads no more: every batch names its lease, and the server checks it.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nats.errors import Error as NatsError

from bus_schemas import codec
from bus_schemas.errors import BusAwayError, FenceRefusedError, NotPermittedError, NotStoredError
from bus_schemas.jetstream.api import Refusal, answer, ask, away, error_of
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.reader import stored_id
from bus_schemas.v1 import Message

__all__ = ["FenceRefusedError", "NotStoredError", "Outgoing", "Publisher", "publish"]

MAX_BATCH = 1000
WRONG_LAST_SEQUENCE = 10071
DUPLICATE_IN_BATCH = 10201
FIRST_BACKOFF_S = 0.05
LAST_BACKOFF_S = 1.0
PATIENCE = 3.0
"""How many request time-outs one message may take in all."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to store. ``msg_id`` is the same on every retry, and never that of another message."""

    subject: str
    message: Message
    msg_id: str
    traceparent: str | None = None


async def publish(bus: Bus, subject: str, message: Message, msg_id: str, traceparent: str | None = None) -> int:
    """Store one message, not fenced; its sequence. Retries with the same id. Raises NotStoredError."""
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
            NotStoredError(problem.text, problem.code) if problem else NotStoredError("an answer that is none")
        )


class Publisher:
    """The leader's pen: every batch carries its lease's sequence, and the server refuses a lease that is not newest."""

    def __init__(self, bus: Bus, leadership: Leadership) -> None:
        self._bus = bus
        self._leadership = leadership

    async def publish_batch(self, items: Sequence[Outgoing]) -> None:
        """Store all of ``items`` or none, in order; past 1,000 in several batches, so put lowers first.

        Raises FenceRefusedError or LeadershipLostError (step down at once: nothing more is published), or
        NotStoredError (the same
        items with the same ids may be tried again).
        """
        for start in range(0, len(items), MAX_BATCH):
            await self._store(_Batch(self._bus, items[start : start + MAX_BATCH]))

    async def _store(self, batch: _Batch) -> None:
        tries = _Tries(self._bus, batch.last.subject)
        in_doubt = False
        while True:
            try:
                # The lock goes back between tries, so that a lost answer does not cost the lease.
                async with self._leadership.steady() as fence:
                    value = await batch.send(fence)
                    problem = error_of(value)
                    if problem is None and "seq" in value:
                        return
                    refusal = problem or Refusal(0, "an answer that is none", passing=True)
                    if refusal.code in (WRONG_LAST_SEQUENCE, DUPLICATE_IN_BATCH) and await batch.landed():
                        return
                    if refusal.code == WRONG_LAST_SEQUENCE:
                        why = f"the server refused a batch under lease {fence}: {refusal.text}"
                        raise FenceRefusedError(self._leadership.lose(why))
            except NotPermittedError as error:
                raise NotStoredError(f"{batch.last.subject}: not permitted: {error}") from error
            except BusAwayError as error:
                in_doubt = True
                await tries.again(error)
                if await batch.landed_if_known():
                    return
                continue
            if refusal.code == DUPLICATE_IN_BATCH and not in_doubt:
                raise NotStoredError(
                    f"an id of this batch was used before: {batch.last.msg_id} or another", refusal.code
                )
            if not refusal.passing:
                raise NotStoredError(f"batch of {len(batch.items)}: {refusal.text}", refusal.code)
            await tries.again(NotStoredError(refusal.text, refusal.code))


class _Batch:
    """Messages that land together."""

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
        """One try; the server's answer to the commit. Raises BusAwayError."""
        lease, batch = self._bus.subjects.lease(), uuid.uuid4().hex
        if not self._bus.nc.is_connected:
            raise BusAwayError(f"{self.last.subject}: not connected")
        fenced = {
            "Nats-Expected-Last-Subject-Sequence": str(fence),
            "Nats-Expected-Last-Subject-Sequence-Subject": lease,
        }
        if len(self._wire) == 1:
            # Whole by itself: the server stages a batch in files, at many times the cost of one message.
            subject, body, said = self._wire[0]
            return answer(await ask(self._bus, subject, body, said | fenced))
        for position, (subject, body, said) in enumerate(self._wire, start=1):
            headers = said | fenced | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(position)}
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
        """The same; False where the bus is away."""
        try:
            return await self.landed()
        except BusAwayError:
            return False


class _Tries:
    """Back-off between tries of one message, and the end of patience."""

    def __init__(self, bus: Bus, what: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._what = what
        self._until_s = self._loop.time() + PATIENCE * bus.settings.request_timeout_s
        self._backoff_s = FIRST_BACKOFF_S

    async def again(self, error: Exception) -> None:
        """Wait before another try. Raises NotStoredError when patience is over."""
        if self._loop.time() + self._backoff_s > self._until_s:
            raise NotStoredError(f"{self._what}: {error}") from error
        await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1.0))
        self._backoff_s = min(self._backoff_s * 2, LAST_BACKOFF_S)


def _ready(bus: Bus, message: Message) -> bytes:
    """The body. Raises NotStoredError for one that no server takes."""
    body = codec.encode(message)
    # Until it is connected the client does not know the server's limit.
    most = min(codec.MAX_BODY_BYTES, bus.nc.max_payload or codec.MAX_BODY_BYTES)
    if len(body) > most:
        raise NotStoredError(f"{message.type} of {len(body)} bytes: the limit is {most}")
    return body
