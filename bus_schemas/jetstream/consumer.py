"""The one loop through which agents and connectors take decisions: survives everything, carries nothing out twice.

A message is acknowledged to JetStream only after its result is stored; a crash between the two repeats the
acknowledgement, not the work. What can not be carried out goes to the dead letters with a reason and is terminated.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from bus_schemas import codec, v1
from bus_schemas.errors import BusAwayError, BusError, ConsumerGoneError, NotStoredError, UndecodableError
from bus_schemas.jetstream.completed import CompletedDecisions, Completion
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import ACK_WAIT_S, Durable, ensure, ensure_all, keep
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.pull import Pull, PullInterruptedError
from bus_schemas.jetstream.reader import last, message_id
from bus_schemas.sender_check import wrong_sender

__all__ = [
    "CannotCarryOutError",
    "Consumer",
    "Delivery",
    "Durable",
    "Handler",
    "ensure",
    "ensure_all",
    "keep",
]

BACKOFF_FIRST_S = 0.2
BACKOFF_LAST_S = 5.0
DEAD_BODY_BYTES = 65_536
PLAIN_REPLY_TOKENS = 9
ATTEMPTS = 20
"""Tries of one message whose handler raises, before it is a dead letter."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as it was delivered. Long work needs no `in_progress`: the loop says so for the handler."""

    subject: str
    sequence: int
    message: v1.Message
    msg_id: str
    deliveries: int
    in_progress: Callable[[], Awaitable[None]]
    traceparent: str | None = None
    pending: int = 0
    """Newer messages that wait already."""


Handler = Callable[[Delivery], Awaitable[v1.Message | None]]
"""Carries a decision out and returns the result to store (None: nothing to say)."""


class CannotCarryOutError(Exception):
    """A message that never can be carried out here: it becomes a dead letter with this reason."""


def _place(raw: Msg) -> tuple[int, int, int]:
    """(stream sequence, deliveries, messages still pending) of a delivered message, from its reply subject."""
    tokens = raw.reply.split(".")
    # $JS.ACK.<stream>.<consumer>..., or with domain and account before them.
    first = 4 if len(tokens) == PLAIN_REPLY_TOKENS else 6
    return int(tokens[first + 1]), int(tokens[first]), int(tokens[first + 4])


class Consumer:
    """One durable consumer's loop.

    ``result_subject`` is where results are stored before the message is done; the newest one there tells, also after
    a restart, what was carried out. Where this process may create consumers, ``create`` lets it bring a lost one
    back; elsewhere it waits for the planner's side. With ``newest_only`` a decision behind which newer ones wait is
    passed over: right for states, which power decisions are.
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        durable: str,
        subject: str,
        handler: Handler,
        *,
        result_subject: str,
        create: bool = False,
        newest_only: bool = False,
        ack_wait_s: float = ACK_WAIT_S,
    ) -> None:
        self._bus = bus
        self._durable = Durable(stream, durable, subject, ack_wait_s)
        self._own = bus.subjects.parse(subject)
        self._handler = handler
        self._result_subject = result_subject
        self._create = create
        self._newest_only = newest_only
        self._done = CompletedDecisions()
        self._life = uuid.uuid4().hex[:12]
        """Part of the results' ids: a message has one result in one life of this loop."""
        self._unsaid: tuple[int, v1.Message | None] | None = None
        self._stopping = asyncio.Event()
        self._backoff_s = BACKOFF_FIRST_S
        self._pull: Pull | None = None

    def stop(self) -> None:
        """End `run` after the message in hand, result stored and acknowledged."""
        self._stopping.set()
        if self._pull is not None:
            self._pull.interrupt()

    async def run(self) -> None:
        """Until `stop` or cancelled. A consumer that does not exist yet is waited for."""
        while not self._stopping.is_set():
            try:
                await self._bus.ready()
                async with Pull(self._bus, self._durable.stream, self._durable.name) as pull:
                    self._done.learn(await self._stored_result())
                    if self._create:
                        await ensure(self._bus, self._durable)
                    await self._pump(pull)
            except (BusError, NatsError, OSError) as error:
                level = logging.DEBUG if isinstance(error, ConsumerGoneError) else logging.INFO
                _log.log(level, "consumer %s begins again: %s", self._durable.name, error)
                await self._pause(self._backoff_s)
                self._backoff_s = min(self._backoff_s * 2, BACKOFF_LAST_S)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(0.5, 1.0)):
                await self._stopping.wait()

    async def _stored_result(self) -> v1.Message | None:
        found = await last(self._bus, self._result_subject)
        return found.message if found is not None else None

    async def _pump(self, pull: Pull) -> None:
        """Take and handle until stopped, or until the server forgets the consumer or the link breaks."""
        self._pull = pull
        try:
            while not self._stopping.is_set():
                raw = await pull.next()
                # Not when the pull was opened: that succeeds also where the consumer is missing.
                self._backoff_s = BACKOFF_FIRST_S
                await self._take(raw)
        except PullInterruptedError:
            return
        finally:
            self._pull = None

    async def _take(self, raw: Msg) -> None:
        try:
            message = codec.decode(raw.data)
            codec.check_headers(message, raw.headers)
            self._check_subject(raw.subject, message)
        except UndecodableError as error:
            await self._bury(raw, error.reason)
            return
        sequence, deliveries, pending = _place(raw)
        if self._unsaid is not None and self._unsaid[0] == sequence:
            result = self._unsaid[1]
        elif self._done.verdict(message) is not Completion.FRESH or (self._newest_only and pending):
            await raw.ack()
            return
        else:
            delivery = Delivery(
                raw.subject,
                sequence,
                message,
                message_id(raw.headers),
                deliveries,
                raw.in_progress,
                (raw.headers or {}).get("traceparent"),
                pending,
            )
            try:
                with self._in_progress(raw):
                    result = await self._handler(delivery)
            except CannotCarryOutError as error:
                await self._bury(raw, str(error))
                return
            except Exception as error:  # noqa: BLE001  # whatever a handler raises must not end the loop
                await self._failed(raw, delivery, error)
                return
            # From here on the work is done: a lost answer repeats the saying of it, never the work.
            self._unsaid = (sequence, result)
        await self._say(raw, sequence, result)

    async def _say(self, raw: Msg, sequence: int, result: v1.Message | None) -> None:
        if result is not None:
            msg_id = f"{self._durable.name}-{sequence}-{self._life}"
            await publish(self._bus, self._result_subject, result, msg_id, (raw.headers or {}).get("traceparent"))
            self._done.learn(result)
        await raw.ack()

    def _check_subject(self, subject: str, message: v1.Message) -> None:
        """The name in the body must be the one in the subject. Raises UndecodableError."""
        parsed = self._own if subject == self._durable.subject else self._bus.subjects.parse(subject)
        if parsed is None or parsed.kind != "decision":
            return
        if reason := wrong_sender(parsed, message):
            raise UndecodableError(reason)

    async def _failed(self, raw: Msg, delivery: Delivery, error: Exception) -> None:
        _log.exception("carrying out %s failed, try %d", delivery.subject, delivery.deliveries)
        if delivery.deliveries >= ATTEMPTS:
            await self._bury(raw, f"failed {delivery.deliveries} times, last with {type(error).__name__}: {error}")
            return
        await raw.nak(delay=min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2 ** min(delivery.deliveries - 1, 16)))

    @contextmanager
    def _in_progress(self, raw: Msg) -> Iterator[None]:
        """Tells the server now and then that the work goes on, so that the message is not delivered again."""
        loop, every_s = asyncio.get_running_loop(), self._durable.ack_wait_s / 3
        telling: set[asyncio.Task[None]] = set()
        timer: asyncio.TimerHandle

        async def say() -> None:
            with suppress(NatsError, OSError):
                await raw.in_progress()

        def tell() -> None:
            nonlocal timer
            task = loop.create_task(say())
            telling.add(task)
            task.add_done_callback(telling.discard)
            timer = loop.call_later(every_s, tell)

        timer = loop.call_later(every_s, tell)
        try:
            yield
        finally:
            timer.cancel()

    async def _bury(self, raw: Msg, reason: str) -> None:
        name, stream, sequence = self._durable.name, self._durable.stream, raw.metadata.sequence.stream
        letter = v1.DeadLetter(
            time=datetime.now(UTC),
            stream=stream,
            consumer=name,
            subject=raw.subject,
            sequence=sequence,
            reason=reason,
            headers=dict(raw.headers or {}),
            body_base64=base64.b64encode(raw.data[:DEAD_BODY_BYTES]).decode(),
            body_size=len(raw.data),
        )
        try:
            await publish(self._bus, self._bus.subjects.deadletter(stream, name), letter, f"dead-{name}-{sequence}")
        except NotStoredError as error:
            _log.warning("no dead letter for %s: %s", raw.subject, error)
            await raw.nak(delay=BACKOFF_LAST_S)
            raise BusAwayError(str(error)) from error
        _log.warning("message %d on %s is a dead letter: %s", sequence, raw.subject, reason)
        await raw.term()
