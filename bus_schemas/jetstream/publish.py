"""Publishing: fenced atomic batches for the leading planner, plain stored messages for everyone else."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from bus_schemas import codec
from bus_schemas.errors import FenceRefused, NotStored
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.lease import Leadership
from bus_schemas.jetstream.read import stored_id
from bus_schemas.v1 import Message

__all__ = ["FenceRefused", "NotStored", "Outgoing", "Publisher", "publish"]

MAX_BATCH = 1000
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
ATTEMPTS = 5
FIRST_BACKOFF_S = 0.1


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to store. ``msg_id`` is the same on every retry."""

    subject: str
    message: Message
    msg_id: str
    traceparent: str | None = None


async def publish(bus: Bus, subject: str, message: Message, msg_id: str, traceparent: str | None = None) -> int:
    """Store one message, not fenced; its sequence. Retries with the same id. Raises NotStored."""
    headers = codec.headers(message, msg_id, bus.settings.name, traceparent)
    answer = await _request(bus, subject, codec.encode(message), headers)
    _refuse(answer, subject)
    return int(answer["seq"])


class Publisher:
    """The leader's pen: every batch carries its lease's sequence, and the server refuses a lease that is not newest."""

    def __init__(self, bus: Bus, leadership: Leadership) -> None:
        self._bus = bus
        self._leadership = leadership

    async def publish_batch(self, items: Sequence[Outgoing]) -> None:
        """Store all of ``items`` or none, in order; past 1,000 in several batches, so put lowers first.

        Raises FenceRefused (step down at once) or NotStored.
        """
        for start in range(0, len(items), MAX_BATCH):
            async with self._leadership.steady() as epoch:
                await self._one_batch(items[start : start + MAX_BATCH], epoch)

    async def _one_batch(self, items: Sequence[Outgoing], epoch: int) -> None:
        backoff_s = FIRST_BACKOFF_S
        for attempt in range(ATTEMPTS):
            try:
                answer = await self._send(items, epoch)
            except (NatsError, TimeoutError, OSError) as error:
                # The answer was lost, not necessarily the batch: the stream knows.
                if await self._landed(items[-1]):
                    return
                if attempt == ATTEMPTS - 1:
                    raise NotStored(f"batch of {len(items)} not stored: {error or type(error).__name__}") from error
                await asyncio.sleep(backoff_s)
                backoff_s *= 2
                continue
            if _code(answer) in WRONG_LAST_SEQUENCE:
                if await self._landed(items[-1]):
                    return
                raise FenceRefused(f"the lease of epoch {epoch} is not the newest any more")
            _refuse(answer, items[-1].subject)
            return

    async def _landed(self, last: Outgoing) -> bool:
        try:
            return await stored_id(self._bus, last.subject) == last.msg_id
        except (NatsError, TimeoutError, OSError):
            return False

    async def _send(self, items: Sequence[Outgoing], epoch: int) -> dict[str, Any]:
        fence = {
            "Nats-Expected-Last-Subject-Sequence": str(epoch),
            "Nats-Expected-Last-Subject-Sequence-Subject": self._bus.subjects.lease(),
        }
        batch = uuid.uuid4().hex
        for position, item in enumerate(items, start=1):
            said = codec.headers(item.message, item.msg_id, self._bus.settings.name, item.traceparent)
            # A batch has no duplicate window of its own; the id stays readable as ce-id.
            del said["Nats-Msg-Id"]
            said |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(position), **fence}
            body = codec.encode(item.message)
            if position < len(items):
                await self._bus.nc.publish(item.subject, body, headers=said)
            else:
                said["Nats-Batch-Commit"] = "1"
                return await _answer(self._bus, item.subject, body, said)
        raise ValueError("an empty batch can not be stored")


async def _answer(bus: Bus, subject: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    reply = await bus.nc.request(subject, body, timeout=bus.settings.request_timeout_s, headers=headers)
    value: dict[str, Any] = json.loads(reply.data or b"{}")
    return value


async def _request(bus: Bus, subject: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    backoff_s = FIRST_BACKOFF_S
    for attempt in range(ATTEMPTS):
        try:
            return await _answer(bus, subject, body, headers)
        except (NatsError, TimeoutError, OSError) as error:
            if attempt == ATTEMPTS - 1:
                why = "no stream stores it" if isinstance(error, NoRespondersError) else str(error)
                raise NotStored(f"{subject}: {why or type(error).__name__}") from error
        await asyncio.sleep(backoff_s)
        backoff_s *= 2
    raise NotStored(subject)


def _code(answer: dict[str, Any]) -> int:
    return int(answer.get("error", {}).get("err_code", 0))


def _refuse(answer: dict[str, Any], subject: str) -> None:
    if "error" in answer:
        raise NotStored(f"{subject}: {answer['error'].get('description', answer['error'])}")
