"""The loop with which agents and connectors receive decisions. It survives lost connections and repeats no work.

A message is acknowledged to JetStream only after its result is stored; a crash between the two repeats the
acknowledgement, not the work. A message that cannot be carried out becomes a dead letter with a reason.
"""

from __future__ import annotations

import asyncio
import base64
import logging
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
from bus_schemas.jetstream.pull import HEARTBEAT_S, Pull, PullInterruptedError
from bus_schemas.jetstream.reader import last, message_id
from bus_schemas.jetstream.tasks.backoff import Backoff, pause_s
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
"""Deliveries of a message whose handler raises, before it becomes a dead letter."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivered message. ``traceparent`` is the W3C trace context of the decision, also in the result's headers."""

    subject: str
    sequence: int
    message: v1.Message
    msg_id: str
    deliveries: int
    in_progress: Callable[[], Awaitable[None]]
    traceparent: str | None = None
    pending: int = 0
    """Newer messages that are already waiting."""


Handler = Callable[[Delivery], Awaitable[v1.Message | None]]
"""Carries out a decision and returns the result to store, or None for no result.

Long work need not report progress: the loop does while the handler runs."""


class CannotCarryOutError(Exception):
    """A message that can never be carried out here: it becomes a dead letter with this reason."""


def _place(raw: Msg) -> tuple[int, int, int]:
    """(stream sequence, deliveries, messages still pending) of a delivered message, from its reply subject."""
    tokens = raw.reply.split(".")
    # $JS.ACK.<stream>.<consumer>..., or with domain and account in front of the stream.
    first = 4 if len(tokens) == PLAIN_REPLY_TOKENS else 6
    return int(tokens[first + 1]), int(tokens[first]), int(tokens[first + 4])


class Consumer:
    """One durable consumer's loop.

    ``result_subject``: where each result is stored before its message is acknowledged. The newest result there shows,
    also after a restart, what was carried out. ``create``: create a missing consumer, where this process has the right
    to; otherwise the loop waits until the planner's side has created it. ``newest_only``: skip a decision when newer
    ones are waiting; right for states, such as power decisions.
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
        self.heartbeat_s = HEARTBEAT_S
        """How often the server shows that it still has the request. A change holds once the message in hand is done."""
        self._bus = bus
        self._durable = Durable(stream, durable, subject, ack_wait_s)
        self._own = bus.subjects.parse(subject)
        self._handler = handler
        self._result_subject = result_subject
        self._create = create
        self._newest_only = newest_only
        self._done = CompletedDecisions()
        self._life = uuid.uuid4().hex[:12]
        """Part of the result ids: a message has one result per life of this loop."""
        self._unpublished: tuple[int, v1.Message | None] | None = None
        self._stopping = asyncio.Event()
        self._backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_LAST_S)
        self._pull: Pull | None = None

    def stop(self) -> None:
        """End `run` once the current message has its result stored and is acknowledged."""
        self._stopping.set()
        if self._pull is not None:
            self._pull.interrupt()

    async def run(self) -> None:
        """Run until `stop` is called or the task is cancelled. Waits for a consumer that does not exist yet."""
        while not self._stopping.is_set():
            try:
                await self._bus.ready()
                stream, name = self._durable.stream, self._durable.name
                async with Pull(self._bus, stream, name, heartbeat_s=self.heartbeat_s) as pull:
                    self._done.learn(await self._stored_result())
                    if self._create:
                        await ensure(self._bus, self._durable)
                    await self._pump(pull)
            except (BusError, NatsError, OSError) as error:
                level = logging.DEBUG if isinstance(error, ConsumerGoneError) else logging.INFO
                _log.log(level, "consumer %s starts again: %s", self._durable.name, error)
                await self._pause(self._backoff.next_s())

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _stored_result(self) -> v1.Message | None:
        found = await last(self._bus, self._result_subject)
        return found.message if found is not None else None

    async def _pump(self, pull: Pull) -> None:
        """Handle messages until stopped, or until another heartbeat is wanted.

        Raises BusError when the consumer is gone or the connection is lost.
        """
        self._pull = pull
        try:
            while not self._stopping.is_set() and pull.heartbeat_s == self.heartbeat_s:
                raw = await pull.next()
                # Not when the pull was opened: that also succeeds where the consumer is missing.
                self._backoff.reset()
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
        if self._unpublished is not None and self._unpublished[0] == sequence:
            result = self._unpublished[1]
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
                codec.traceparent_of(raw.headers),
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
            # The work is done: if storing the result fails, only that is repeated.
            self._unpublished = (sequence, result)
        await self._publish_result(raw, sequence, result)

    async def _publish_result(self, raw: Msg, sequence: int, result: v1.Message | None) -> None:
        if result is not None:
            msg_id = f"{self._durable.name}-{sequence}-{self._life}"
            await publish(self._bus, self._result_subject, result, msg_id, codec.traceparent_of(raw.headers))
            self._done.learn(result)
        await raw.ack()

    def _check_subject(self, subject: str, message: v1.Message) -> None:
        """Raises UndecodableError where the name in the body is not the one in the subject."""
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
        await raw.nak(delay=pause_s(BACKOFF_FIRST_S, BACKOFF_LAST_S, delivery.deliveries - 1))

    @contextmanager
    def _in_progress(self, raw: Msg) -> Iterator[None]:
        """Report progress to the server a few times per ack wait, so that the message is not delivered again."""
        loop, every_s = asyncio.get_running_loop(), self._durable.ack_wait_s / 3
        reports: set[asyncio.Task[None]] = set()
        timer: asyncio.TimerHandle

        async def report() -> None:
            with suppress(NatsError, OSError):
                await raw.in_progress()

        def start_report() -> None:
            nonlocal timer
            task = loop.create_task(report())
            reports.add(task)
            task.add_done_callback(reports.discard)
            timer = loop.call_later(every_s, start_report)

        timer = loop.call_later(every_s, start_report)
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
