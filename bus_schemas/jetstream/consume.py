"""The one loop through which agents and connectors take decisions: survives everything, carries nothing out twice.

A message is acknowledged to JetStream only after its result is stored; a crash between the two repeats the work.
What can not be carried out goes to the dead letters with a reason and is terminated.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import api
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from bus_schemas import codec, v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publish import NotStored, publish

FETCH_S = 5.0
HEARTBEAT_S = 1.0
ACK_WAIT_S = 30.0
BACKOFF_FIRST_S = 0.2
BACKOFF_LAST_S = 5.0
DEAD_BODY_BYTES = 65_536


def consumer_config(durable: str, subject: str) -> api.ConsumerConfig:
    """The full configuration: a consumer that was lost is created again exactly like this."""
    return api.ConsumerConfig(
        durable_name=durable,
        filter_subject=subject,
        deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=1,
        mem_storage=True,
    )


async def ensure_consumer(bus: Bus, stream: str, durable: str, subject: str) -> None:
    """Create a consumer or leave it as it is. Called by the planner's side: agents may not create consumers."""
    await bus.js.add_consumer(stream, consumer_config(durable, subject))


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as it was delivered. ``in_progress`` tells the server that long work goes on."""

    subject: str
    sequence: int
    message: v1.Message
    msg_id: str
    deliveries: int
    in_progress: Callable[[], Awaitable[None]]
    traceparent: str | None = None


Handler = Callable[[Delivery], Awaitable[v1.Message | None]]
"""Carries a decision out and returns the result to store (None: nothing to say). Must be idempotent."""


class CanNotCarryOut(Exception):  # noqa: N818 - raised by handlers
    """A message that never can be carried out here: it becomes a dead letter with this reason."""


class Consumer:
    """One durable consumer's loop. ``result_subject`` is where results are stored before the message is done."""

    def __init__(
        self, bus: Bus, stream: str, durable: str, subject: str, handler: Handler, *, result_subject: str
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._durable = durable
        self._subject = subject
        self._handler = handler
        self._result_subject = result_subject
        self._done: tuple[str, v1.Message | None] | None = None

    async def run(self) -> None:
        """Until cancelled. A consumer that does not exist yet is waited for."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                pull = await self._bus.js.pull_subscribe_bind(durable=self._durable, stream=self._stream)
                try:
                    await self._pump(pull)
                finally:
                    await _quietly(pull.unsubscribe())
            except (NatsError, NotStored, TimeoutError, OSError):
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
                backoff_s = min(backoff_s * 2, BACKOFF_LAST_S)
            else:
                backoff_s = BACKOFF_FIRST_S

    async def _pump(self, pull: JetStreamContext.PullSubscription) -> None:
        """Fetch and handle until the server forgets the consumer or the link breaks."""
        while True:
            try:
                messages = await pull.fetch(1, timeout=FETCH_S, heartbeat=HEARTBEAT_S)
            except TimeoutError:
                # No decision, or a consumer that is gone: only the server knows.
                await self._still_there()
                continue
            for message in messages:
                await self._take(message)

    async def _still_there(self) -> None:
        try:
            await self._bus.js.consumer_info(self._stream, self._durable)
        except NotFoundError:
            await asyncio.sleep(BACKOFF_FIRST_S)
            raise

    async def _take(self, raw: Msg) -> None:
        headers = raw.headers or {}
        msg_id = headers.get("ce-id") or headers.get("Nats-Msg-Id", "")
        meta = raw.metadata
        try:
            message = codec.decode(raw.data)
        except codec.Undecodable as error:
            await self._bury(raw, error.reason)
            return
        if self._done is not None and self._done[0] == msg_id and msg_id:
            result = self._done[1]
        else:
            delivery = Delivery(
                raw.subject,
                meta.sequence.stream,
                message,
                msg_id,
                meta.num_delivered,
                raw.in_progress,
                headers.get("traceparent"),
            )
            try:
                result = await self._handler(delivery)
            except CanNotCarryOut as error:
                await self._bury(raw, str(error))
                return
            self._done = (msg_id, result)
        if result is not None:
            await publish(
                self._bus, self._result_subject, result, self._result_id(raw, result), headers.get("traceparent")
            )
        await raw.ack_sync(timeout=self._bus.settings.request_timeout_s)

    def _result_id(self, raw: Msg, result: v1.Message) -> str:
        """The same for the same result of the same message, so that a retry is stored once."""
        digest = hashlib.sha256(codec.encode(result)).hexdigest()[:16]
        return f"{self._durable}-{raw.metadata.sequence.stream}-{digest}"

    async def _bury(self, raw: Msg, reason: str) -> None:
        letter = v1.DeadLetter(
            time=datetime.now(UTC),
            stream=self._stream,
            consumer=self._durable,
            subject=raw.subject,
            sequence=raw.metadata.sequence.stream,
            reason=reason,
            headers=dict(raw.headers or {}),
            body_base64=base64.b64encode(raw.data[:DEAD_BODY_BYTES]).decode(),
            body_size=len(raw.data),
        )
        subject = self._bus.subjects.deadletter(self._stream, self._durable)
        await publish(self._bus, subject, letter, f"dead-{self._durable}-{raw.metadata.sequence.stream}")
        await raw.term()


async def _quietly(closing: Awaitable[None]) -> None:
    try:
        await closing
    except (NatsError, OSError):
        return
