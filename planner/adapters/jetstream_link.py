"""The bus as the planner's service sees it, on JetStream: listening, the lead, fenced batches, plan records."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from nats.errors import Error as NatsError

from bus_schemas import codec, v1
from bus_schemas.flood_gate import FloodGate
from bus_schemas.jetstream.api import ask
from bus_schemas.jetstream.connect import Bus, BusError
from bus_schemas.jetstream.decision_history import StreamState, forgetful
from bus_schemas.jetstream.leader_election import Leadership, LeadershipLostError
from bus_schemas.jetstream.publisher import Outgoing, Publisher
from bus_schemas.jetstream.reader import StoredMessage, all_messages, last_per_subject
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.jetstream.watch import follow
from bus_schemas.sender_check import in_place
from bus_schemas.streams import forgets, stream_of
from bus_schemas.subjects import Subjects, decode_name
from bus_schemas.v1 import Message
from planner.ports import LinkAwayError, LinkUnfitError, Listener, Standing, StoredHistory, Term, TermEndedError

log = logging.getLogger(__name__)

RETRY_S = 0.5
OLD_S = 60.0
"""If by the stream of decisions no planner has led for this many seconds, the stream may have been restored from a
copy: leaders sign it every few seconds, and restoring a copy takes longer than starting a planner."""
LEASES = 3.0
"""The same, in leases, where they are long."""


class BusLink:
    """``Link`` on one connection. ``holder`` names this process in the lease."""

    def __init__(
        self,
        bus: Bus,
        holder: str,
        lease_ttl_s: float,
        *,
        old_s: float = OLD_S,
        budgets_watts: Mapping[str, float] | None = None,
    ) -> None:
        self._bus = bus
        self._budgets_watts = budgets_watts
        self._gate = FloodGate()
        self._holder = holder
        self._lease_ttl_s = lease_ttl_s
        self._old_s = max(old_s, LEASES * lease_ttl_s)
        self._newest = 0
        """The highest sequence of the stream of decisions that this process has seen."""
        self._doubted = ""
        """The doubt of a term of this process that ended before it had stored anything."""
        self._leadership: Leadership | None = None
        self._away = ""
        """Why the lease could not even be asked for."""

    @property
    def standing(self) -> Standing:
        """Who leads, and what keeps this process from it."""
        leadership = self._leadership
        flooding = self._flooding()
        if leadership is None or leadership.held:
            return Standing(hindrance=self._away, flooding=flooding)
        leader, hindrance = leadership.leader, self._away or leadership.hindrance
        if leader is None:
            return Standing("", hindrance, flooding=flooding)
        return Standing(leader.holder, hindrance, leader.budgets_watts, flooding)

    def _flooding(self) -> tuple[str, ...]:
        """The names in the subjects with too many messages."""
        subjects = self._gate.flooding(asyncio.get_running_loop().time())
        return tuple(sorted({decode_name(subject.rpartition(".")[2]) for subject in subjects}))

    async def listen(self, listener: Listener) -> None:
        """Feed ``listener`` until cancelled. Operators' commands come with all history: a pin outlives a pause."""
        await self._bus.ready()
        subjects = self._bus.subjects
        states = (subjects.all_of("ack"), subjects.all_of("telemetry", "node"))
        feeds = {f"listen {wildcard}": self._feed(listener, wildcard) for wildcard in states}
        await run_together({**feeds, "listen control": self._orders(listener, subjects.all_of("control"))})

    async def _orders(self, listener: Listener, wildcard: str) -> None:
        """The newest order has the highest number, also where the stream was lost or came back from a backup."""
        known: set[str] = set()
        newest: dict[str, int] = {}
        lift = 0
        async for stored in follow(self._bus, wildcard, 0):
            last = newest.get(stored.subject, 0)
            if stored.sequence + lift <= last:
                if stored.msg_id and stored.msg_id in known:
                    continue  # A backup's: received before, and perhaps superseded since.
                lift = max(newest.values()) + 1 - stored.sequence
                log.warning("%s begins again at %d: its stream was lost", stored.subject, stored.sequence)
            known.add(stored.msg_id)
            newest[stored.subject] = stored.sequence + lift
            self._hand_on(listener, stored, stored.sequence + lift)

    def _hand_on(self, listener: Listener, stored: StoredMessage, number: int) -> None:
        if _genuine(self._bus, stored):
            listener.received(stored.message, number)

    async def _feed(self, listener: Listener, wildcard: str) -> None:
        after = 0
        for stored in await self._patiently_last(wildcard):
            self._hand_on(listener, stored, stored.sequence)
            after = max(after, stored.sequence)
        async for stored in follow(self._bus, wildcard, after, self._gate):
            self._hand_on(listener, stored, stored.sequence)

    async def _patiently_last(self, wildcard: str) -> list[StoredMessage]:
        while True:
            try:
                return await last_per_subject(self._bus, wildcard)
            except (BusError, NatsError, TimeoutError, OSError):
                await asyncio.sleep(RETRY_S)

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[Term]:
        """Waits for the lead, renews it inside the context, and releases it afterwards.

        Raises LinkAwayError or LinkUnfitError while waiting, and TermEndedError in place of the cancelled body when the
        lease is lost.
        """
        # A sign marks the stream as live: on an old copy it must not come before the decisions that state the doubt.
        await self._bus.ready()
        leadership = self._leadership = Leadership(
            self._bus, self._holder, self._lease_ttl_s, signs=False, budgets_watts=self._budgets_watts
        )
        try:
            async with AsyncExitStack() as stack:
                try:
                    _fit(await forgetful(self._bus))
                    self._away = ""
                    epoch = await stack.enter_async_context(leadership.lead())
                except (BusError, NatsError, TimeoutError, OSError) as error:
                    self._away = f"the lease could not be asked for: {str(error) or type(error).__name__}"
                    raise LinkAwayError(self._away) from error
                before = leadership.before
                _fit("" if before is None else forgets(before.config))
                self._doubted = self._doubt(before, leadership.led_until) or self._doubted
                if not self._doubted:
                    await leadership.vouch()
                yield BusTerm(self._bus, leadership, epoch, self._doubted, self._settled)
        except LeadershipLostError as error:
            raise TermEndedError(str(error)) from error
        finally:
            self._newest = max(self._newest, leadership.newest_seen)

    def _settled(self) -> None:
        """The leader's doubt is now in its stored decisions, where the next leader reads it."""
        self._doubted = ""

    def _doubt(self, before: StreamState | None, led_until: datetime | None) -> str:
        """Why the stream of decisions may be older than what agents were sent; empty where nothing points to it."""
        if before is None:
            return ""
        newest, self._newest = self._newest, before.last_sequence
        if before.last_sequence < newest:
            return f"the stream of decisions went back from sequence {newest} to {before.last_sequence}"
        idle_s = 0.0 if led_until is None else (datetime.now(UTC) - led_until).total_seconds()
        return f"by the stream of decisions no planner has led for {idle_s:.0f} s" if idle_s > self._old_s else ""

    async def record(self, record: v1.PlanRecord) -> None:
        """A plan record, sent and not waited for: the stream keeps two hours of them, and none decides anything."""
        if not self._bus.connected:
            return
        msg_id = f"plan-{record.deployment}-{record.time.timestamp():.6f}"
        headers = codec.headers(record, msg_id, self._bus.settings.name)
        subject = self._bus.subjects.telemetry_plan(record.deployment)
        try:
            await self._bus.nc.publish(subject, codec.encode(record), headers=headers)
        except (BusError, NatsError, OSError):
            return


def _fit(problem: str) -> None:
    if problem:
        raise LinkUnfitError(problem)


class BusTerm:
    """One holding of the lease. ``epoch`` is the sequence under which it was won: renewals do not change it.

    ``stored`` is called once the first batch of a term in doubt was stored.
    """

    def __init__(
        self, bus: Bus, leadership: Leadership, epoch: int, doubt: str = "", stored: Callable[[], None] = lambda: None
    ) -> None:
        self._bus = bus
        self._leadership = leadership
        self._doubt = doubt
        self._stored = stored
        self._publisher = Publisher(bus, leadership)
        self._epoch = epoch

    @property
    def epoch(self) -> int:
        return self._epoch

    async def publish(self, decisions: Sequence[Message], traceparent: str | None = None) -> Sequence[int]:
        """One fenced atomic batch. Raises TermEndedError or LinkAwayError."""
        items = [_outgoing(self._bus.subjects, message, traceparent) for message in decisions]
        try:
            places = await self._publisher.publish_batch(items)
        except LeadershipLostError as error:
            raise TermEndedError(str(error)) from error
        except BusError as error:
            raise LinkAwayError(str(error)) from error
        if items and not self._leadership.signs:
            self._stored()
            await self._leadership.vouch()
        return places

    async def past(self) -> StoredHistory:
        """What the streams hold. Raises LinkAwayError."""
        bus, subjects = self._bus, self._bus.subjects
        try:
            scaling = await last_per_subject(bus, subjects.all_of("decision", "scaling"))
            power = await last_per_subject(bus, subjects.all_of("decision", "power"))
            last = [
                *await last_per_subject(bus, subjects.all_of("ack")),
                *await last_per_subject(bus, subjects.all_of("telemetry", "node")),
                *await all_messages(bus, subjects.all_of("control")),
            ]
        except (BusError, NatsError, TimeoutError, OSError) as error:
            raise LinkAwayError(f"the streams could not be read: {str(error) or type(error).__name__}") from error
        return StoredHistory(
            scaling=tuple(s.message for s in scaling if isinstance(s.message, v1.ScalingDecision)),
            power=tuple(s.message for s in power if isinstance(s.message, v1.PowerDecision)),
            last_messages=tuple((s.message, s.sequence) for s in last if _genuine(bus, s)),
            doubt=self._doubt,
        )

    async def records(self, since: datetime) -> Sequence[v1.PlanRecord]:
        """Plan records since an instant, oldest first. Raises LinkAwayError."""
        bus, wildcard = self._bus, self._bus.subjects.all_of("telemetry", "plan")
        try:
            first = await _first_since(bus, wildcard, since)
            found = [] if first is None else await all_messages(bus, wildcard, after=first - 1)
        except (BusError, NatsError, TimeoutError, OSError) as error:
            raise LinkAwayError(f"plan records could not be read: {str(error) or type(error).__name__}") from error
        records = [stored.message for stored in found if isinstance(stored.message, v1.PlanRecord)]
        # Records of an older layout of the streams are copied while new ones come in.
        return sorted(records, key=lambda record: record.time)


def _genuine(bus: Bus, stored: StoredMessage) -> bool:
    """Whether a message names the sender whose subject it was published on."""
    if in_place(bus.subjects, stored.subject, stored.message):
        return True
    log.warning("a %s on %s names another sender and is ignored", stored.message.type, stored.subject)
    return False


async def _first_since(bus: Bus, wildcard: str, since: datetime) -> int | None:
    """The sequence of the first message that matches and is not older; None where there is none."""
    api = f"$JS.API.DIRECT.GET.{stream_of(bus.subjects, wildcard)}"
    query = {"next_by_subj": wildcard, "start_time": since.astimezone(UTC).isoformat().replace("+00:00", "Z")}
    answer = await ask(bus, api, json.dumps(query).encode())
    headers = answer.headers or {}
    return None if "Status" in headers else int(headers["Nats-Sequence"])


def _outgoing(subjects: Subjects, message: Message, traceparent: str | None) -> Outgoing:
    match message:
        case v1.ScalingDecision():
            who, subject = message.deployment, subjects.decision_scaling(message.deployment)
        case v1.PowerDecision():
            who, subject = message.node, subjects.decision_power(message.node)
        case _:
            raise TypeError(f"{message.type} is not a decision")
    kind = "scaling" if isinstance(message, v1.ScalingDecision) else "power"
    msg_id = f"{kind}-{who}-{message.incarnation}-{message.epoch}-{message.decision_id}"
    return Outgoing(subject, message, msg_id, traceparent)
