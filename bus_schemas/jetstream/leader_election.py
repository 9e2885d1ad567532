"""Leadership: one lease message with a time to live, renewed by its holder and fenced by the server.

Safety depends on no clock: each batch names the sequence of the lease message under which it is published, and the
server refuses the batch of a planner that slept past its lease. Clocks only decide how soon the loss is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from bus_schemas import codec, v1
from bus_schemas.errors import BusAwayError, LeadershipLostError, NotStoredError
from bus_schemas.jetstream.api import NOT_THE_LAST, answer, ask, error_of
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.decision_history import StreamState, decisions_state, last_led
from bus_schemas.jetstream.reader import last, last_raw, sequence_of
from bus_schemas.jetstream.tasks.cancellation import cancellation_kept, cancellations
from bus_schemas.standing_lease import StandingLease, standing

__all__ = ["Leadership", "LeadershipLostError"]

RENEWALS_PER_TTL = 3.0
POLL_S = 0.25
SIGN_EVERY_S = 10.0
"""How often a leader leaves a sign on the stream that outlives its lease."""
STANDBY_SIGNS = 3.0
"""How many signs a candidate that stands by may miss before it is no longer counted as there."""
_log = logging.getLogger(__name__)


class Leadership:
    """One candidate's side of the lease.

    ``ttl_s``: time to live of the lease, at least 1 s; the server counts whole seconds, so it is rounded up. After a
    crash another candidate leads within ``ttl_s`` plus one second. ``epoch``: the sequence of the lease message that
    began this term, constant during the term and higher than that of every earlier term. ``fence``: the sequence of the
    newest lease message, which changes with each renewal. ``budgets_watts``: by site, as in our settings; with them the
    candidate also leaves signs while it stands by.
    """

    def __init__(
        self,
        bus: Bus,
        holder: str,
        ttl_s: float = 5.0,
        *,
        signs: bool = True,
        budgets_watts: Mapping[str, float] | None = None,
    ) -> None:
        self._bus = bus
        self._holder = holder
        self._ttl_s = float(max(1, math.ceil(ttl_s)))
        self._budgets_watts = dict(budgets_watts or {})
        self._stood_by_s = float("-inf")
        self._term = ""
        self._epoch: int | None = None
        self._fence: int | None = None
        self._confirmed_s = 0.0
        self._renewals = 0
        self._why = "the lease is not held"
        self._lock = asyncio.Lock()
        self._ended = asyncio.Event()
        self._ended.set()
        self.before: StreamState | None = None
        """The stream of decisions right before our first lease message of this term."""
        self.led_until: datetime | None = None
        """When a planner last led before this term, by the stream; None where the stream does not show it."""
        self._signed_s = float("-inf")
        self.signs = signs
        """Whether this term leaves signs on the stream of decisions; by them the next leader knows it was alive."""
        self._watched = (0, 0.0)
        """The newest lease message of another, and when it was seen first."""
        self.newest_seen = 0
        """The highest sequence of a lease message that was seen, ours or another's."""
        self.leader: v1.Lease | None = None
        """The lease of another planner that leads, as last seen here."""
        self.hindrance = ""
        """What, other than a leader, keeps the lease from being taken; empty where nothing does."""

    @property
    def epoch(self) -> int | None:
        """The sequence of the lease message that began this term; None while the lease is not held."""
        return self._epoch

    @property
    def fence(self) -> int | None:
        """The sequence of our newest lease message; None while the lease is not held."""
        return self._fence

    @property
    def held(self) -> bool:
        """Whether the lease is held, as far as is known here."""
        return self._fence is not None

    async def acquire(self) -> int:
        """Wait until the lease is free, take it, and return the epoch. Survives a bus that is away."""
        wake = asyncio.Event()

        async def on_lease(_: Msg) -> None:
            wake.set()

        subscription = None
        with suppress(NatsError, OSError):
            # Wakes us at once after an orderly release; without the right to subscribe, polling finds it.
            subscription = await self._bus.nc.subscribe(
                self._bus.subjects.stored(self._bus.subjects.lease()), cb=on_lease
            )
        try:
            while True:
                await self._bus.ready()
                try:
                    if await self.try_acquire() and self._epoch is not None:
                        return self._epoch
                except (BusAwayError, NotStoredError) as error:
                    self._hinder(f"the lease cannot be taken: {error}")
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(POLL_S, self._ttl_s / 4) * random.uniform(0.5, 1.0)):
                        await wake.wait()
                wake.clear()
        finally:
            if subscription is not None:
                with suppress(NatsError, OSError):
                    await subscription.unsubscribe()

    async def try_acquire(self) -> bool:
        """Take the lease if it is free now; whether it is held. Raises BusAwayError, NotStoredError."""
        async with self._lock:
            if self.held:
                return True
            found = await self._standing()
            self.newest_seen = max(self.newest_seen, found.sequence if found else 0)
            if found is None or found.free:
                self.leader = None
            elif not await self._over(found):
                return False
            self._term = uuid.uuid4().hex[:12]
            self.before, self.led_until = await decisions_state(self._bus), await last_led(self._bus)
            sequence = await self._write(found.sequence if found else 0, renewals=0)
            if sequence is None:
                return False
            self._epoch, self._renewals = sequence, 0
            self.leader = None
            self._hinder("")
            self._ended.clear()
            self._signed_s = float("-inf")
            await self._sign()
            return True

    async def _standing(self) -> StandingLease | None:
        """The newest message on the lease's subject, whatever it is. Raises BusAwayError."""
        found = await last_raw(self._bus, self._bus.subjects.lease())
        return None if found is None else standing(sequence_of(found), found.headers or {}, found.data)

    async def _over(self, found: StandingLease) -> bool:
        """Whether a message that its writer did not release no longer keeps the lease, by the server's own clock.

        Its overwriting names its sequence, so that a leader which renews at that moment stays the leader.
        """
        self.leader = found.lease
        now_s, term_s = asyncio.get_running_loop().time(), found.over_after_s(self._ttl_s)
        if self._watched[0] != found.sequence:
            self._watched = (found.sequence, now_s)
        if found.expires and now_s - self._watched[1] < term_s:
            self._hinder("")
            await self._stand_by()
            return False
        state = await decisions_state(self._bus)
        left_s = term_s if state is None else term_s - (state.at - found.stored_at).total_seconds()
        if left_s <= 0.0:
            _log.warning("%s: it is overwritten now", found.flaw_text())
            return True
        self._hinder(
            "" if found.expires else f"{found.flaw_text()}; it is overwritten {term_s:g} s after it was stored"
        )
        return False

    async def _stand_by(self) -> None:
        """Publish now and then that this candidate waits, and which budgets it knows."""
        now_s = asyncio.get_running_loop().time()
        if not self._budgets_watts or now_s - self._stood_by_s < SIGN_EVERY_S:
            return
        self._stood_by_s = now_s
        message = self._lease_message(ttl_s=STANDBY_SIGNS * SIGN_EVERY_S)
        headers = codec.headers(message, f"standby-{uuid.uuid4().hex[:12]}", self._bus.settings.name)
        headers["Nats-TTL"] = f"{int(message.ttl_s)}s"
        with suppress(BusAwayError, NatsError, OSError):
            await ask(self._bus, self._bus.subjects.standby(), codec.encode(message), headers)

    def _lease_message(self, ttl_s: float, renewals: int = 0, *, released: bool = False) -> v1.Lease:
        return v1.Lease(
            time=datetime.now(UTC),
            holder=self._holder,
            ttl_s=ttl_s,
            renewals=renewals,
            released=released,
            budgets_watts=self._budgets_watts,
        )

    def _hinder(self, why: str) -> None:
        """Note what keeps the lease from being taken; the log has each reason once."""
        if why and why != self.hindrance:
            _log.warning("not leading: %s", why)
        self.hindrance = why

    async def renew(self) -> int:
        """Write the next lease message and return the new fence.

        Raises LeadershipLostError; BusAwayError or NotStoredError where the caller may try again.
        """
        async with self._lock:
            if self._fence is None:
                raise LeadershipLostError(self._why)
            sequence = await self._write(self._fence, renewals=self._renewals + 1)
            if sequence is None:
                raise LeadershipLostError(self.lose("another planner holds the lease, or it ran out"))
            self._renewals += 1
            return sequence

    async def keep(self) -> None:
        """Renew three times per ``ttl_s``, until cancelled. Raises LeadershipLostError, also after a call of `lose`."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._ttl_s / RENEWALS_PER_TTL):
                    await self._ended.wait()
                    raise LeadershipLostError(self._why)
            await self._renew_in_time()

    async def _renew_in_time(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self.renew()
                await self._sign()
            except (BusAwayError, NotStoredError) as error:
                if loop.time() > self._confirmed_s + self._ttl_s:
                    raise LeadershipLostError(self.lose(f"the lease could not be renewed: {error}")) from error
                await asyncio.sleep(POLL_S)
            else:
                return

    async def _keep_or_fail(self) -> None:
        """`keep`, but an unrequested cancellation is an error: a task group ignores it, and renewals would stop."""
        with cancellation_kept():
            await self.keep()

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[int]:
        """Wait for the lease, yield the epoch, and renew the lease until the body ends; then release it.

        When the lease is lost, the body is cancelled and LeadershipLostError is raised in its place, or
        ConnectionAbortedError when the client library gave up a renewal.
        """
        epoch = await self.acquire()
        requested = cancellations()
        try:
            async with asyncio.TaskGroup() as tasks:
                keeper = tasks.create_task(self._keep_or_fail(), name="renew lease")
                yield epoch
                keeper.cancel()
        except BaseExceptionGroup as group:
            if cancellations() > requested:
                # The group of Python 3.11 drops a cancellation of its body that comes together with a task's error.
                raise asyncio.CancelledError from group
            lost = group.subgroup(LeadershipLostError)
            if lost is None:
                # The body's own error, as it would have been raised without the group.
                raise (group.exceptions[0] if len(group.exceptions) == 1 else group) from None
            raise LeadershipLostError(self._why) from group
        finally:
            await self.release()

    async def release(self) -> None:
        """Release the lease, so that another candidate leads at once. No effect when not held or the bus is away."""
        async with self._lock:
            if self._fence is None:
                return
            fence = self._fence
            self.lose("the lease was released")
            with suppress(BusAwayError, NotStoredError):
                await self._write(fence, renewals=self._renewals + 1, released=True)

    def lose(self, why: str) -> str:
        """End this term because of ``why``. Returns the reason for which the term ended."""
        if self._fence is not None:
            self._why = why
        self._epoch = self._fence = None
        self._ended.set()
        return self._why

    async def vouch(self) -> None:
        """Leave signs from now on, the first at once: the stream is not an old copy, or records that it is one."""
        self.signs = True
        await self._sign()

    async def _sign(self) -> None:
        """Store a sign that a planner led until now. A failure is made good at the next renewal."""
        now_s = asyncio.get_running_loop().time()
        if not self.signs or now_s - self._signed_s < SIGN_EVERY_S:
            return
        message = self._lease_message(self._ttl_s, self._renewals)
        headers = codec.headers(message, f"led-{self._term}-{self._renewals}", self._bus.settings.name)
        with suppress(BusAwayError, NatsError, OSError):
            await ask(self._bus, self._bus.subjects.led(), codec.encode(message), headers)
            self._signed_s = now_s

    @asynccontextmanager
    async def steady(self) -> AsyncIterator[int]:
        """Yield the fence and hold off renewals meanwhile: one in between would make the server refuse the batch.

        Raises LeadershipLostError.
        """
        async with self._lock:
            if self._fence is None:
                raise LeadershipLostError(self._why)
            yield self._fence

    async def _write(self, expected: int, *, renewals: int, released: bool = False) -> int | None:
        """Write a lease message; its sequence, or None where another message came first.

        Raises BusAwayError, NotStoredError.
        """
        subject, sent_s = self._bus.subjects.lease(), asyncio.get_running_loop().time()
        message = self._lease_message(self._ttl_s, renewals, released=released)
        msg_id = f"lease-{self._term}-{renewals}"
        headers = codec.headers(message, msg_id, self._bus.settings.name)
        headers["Nats-TTL"] = f"{int(self._ttl_s)}s"
        headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        timeout_s = min(self._bus.settings.request_timeout_s, self._ttl_s / RENEWALS_PER_TTL)
        value = answer(await ask(self._bus, subject, codec.encode(message), headers, timeout_s))
        problem = error_of(value)
        if problem is None:
            sequence = int(value["seq"])
        elif problem.code in NOT_THE_LAST:
            # A write whose answer was lost looks like one of another candidate: the id shows whose it is.
            found = await last(self._bus, subject)
            if found is None or found.msg_id != msg_id:
                return None
            sequence = found.sequence
        else:
            raise NotStoredError(f"{subject}: {problem.text}", problem.code)
        if not released:
            self._fence, self._confirmed_s = sequence, sent_s
            self.newest_seen = max(self.newest_seen, sequence)
        return sequence
