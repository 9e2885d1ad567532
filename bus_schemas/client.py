"""``VirtualConnectorClient`` for outside orchestrators: decisions, complete, fail, progress; and Dynamo's wait and get.

Needs pydantic and nats-py only, creates nothing on the server, and keeps no state: a decision is pending until it is
carried out, so a client that starts late or again misses nothing.
"""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from bus_schemas.errors import BusAwayError, BusUnreachableError
from bus_schemas.jetstream.completed import CompletedDecisions, Completion
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.subjects import Subjects
from bus_schemas.v1 import AckStatus, ScalingAck, ScalingDecision

RECHECK_S = 2.0
RETRY_S = 0.5


class VirtualConnectorClient:
    """One deployment's decisions. ``nc`` is an open nats-py connection; the caller keeps and closes it.

    Open it with ``max_reconnect_attempts=-1``: nats-py gives up for good after 60 attempts otherwise. Raises
    BadNameError for a deployment whose name a subject cannot carry.
    """

    def __init__(
        self,
        nc: Client,
        deployment: str,
        *,
        prefix: str = "wattscale",
        name: str = "orchestrator",
        timeout_s: float = 5.0,
    ) -> None:
        settings = BusSettings(prefix=prefix, name=name, request_timeout_s=timeout_s)
        self._bus = Bus(nc, nc.jetstream(timeout=timeout_s), Subjects(prefix), settings, closing=True)
        self._deployment = deployment
        self._decision_subject = self._bus.subjects.decision_scaling(deployment)
        self._ack_subject = self._bus.subjects.ack_scaling(deployment)
        self._trace: tuple[tuple[str, int] | None, str | None] = None, None

    async def get(self) -> ScalingDecision | None:
        """The newest decision, or None before the first one. Raises BusAwayError (a TimeoutError) without an answer."""
        found = await last(self._bus, self._decision_subject)
        if found is None or not isinstance(found.message, ScalingDecision):
            return None
        self._trace = _key(found.message), found.traceparent
        return found.message

    def traceparent(self, decision: ScalingDecision) -> str | None:
        """The W3C trace context of the newest decision that was read, for an orchestrator's own spans.

        The acknowledgements carry it too. None for another decision, or where the planner sends no traces.
        """
        key, trace = self._trace
        return trace if key == _key(decision) else None

    async def scaled(self) -> ScalingAck | None:
        """The newest acknowledgement, or None before the first one. Raises BusAwayError."""
        found = await last(self._bus, self._ack_subject)
        return found.message if found and isinstance(found.message, ScalingAck) else None

    async def decisions(self) -> AsyncGenerator[ScalingDecision, None]:
        """Each decision that is not carried out yet, once; the newest where several arrived meanwhile.

        Begins with a decision that is already pending, and never ends by itself: cancel the task or leave the loop to
        stop. A decision that failed retryably is not yielded again: try again inside the loop, or call this again.
        Survives lost connections and restarts of the server. Raises BusUnreachableError when the connection is closed
        for good.
        """
        yielded: tuple[str, int] | None = None
        async with self._wakened() as wake:
            while True:
                decision = await self._pending()
                if decision is not None and _key(decision) != yielded:
                    yielded = _key(decision)
                    yield decision
                else:
                    await _woken(wake)

    async def wait(self, timeout_s: float | None = None, *, timeout: float | None = None) -> None:
        """Wait until a decision is pending (not carried out yet); returns at once where one is.

        A decision that failed retryably is still pending. Raises TimeoutError after ``timeout_s`` seconds,
        BusUnreachableError when the connection is closed for good. Survives lost connections and restarts of the
        server. ``timeout`` is the old name of ``timeout_s`` and will be removed in 0.2.
        """
        if timeout is not None:
            warnings.warn("wait(timeout=) is now wait(timeout_s=)", DeprecationWarning, stacklevel=2)
            timeout_s = timeout if timeout_s is None else timeout_s
        async with asyncio.timeout(timeout_s), self._wakened() as wake:
            while await self._pending() is None:
                await _woken(wake)

    @asynccontextmanager
    async def _wakened(self) -> AsyncIterator[asyncio.Event]:
        """An event that each new decision sets."""
        wake = asyncio.Event()

        async def on_decision(_: Msg) -> None:
            wake.set()

        if self._bus.nc.is_closed:
            raise BusUnreachableError("the connection is closed")
        subscription = await self._bus.nc.subscribe(self._bus.subjects.stored(self._decision_subject), cb=on_decision)
        try:
            yield wake
        finally:
            with suppress(NatsError, OSError):
                await subscription.unsubscribe()

    async def _pending(self) -> ScalingDecision | None:
        """The newest decision if it is not carried out yet; None also where the server did not answer."""
        try:
            decision, ack = await self.get(), await self.scaled()
        except BusAwayError as error:
            if self._bus.nc.is_closed:
                raise BusUnreachableError(
                    "the connection is closed: open another, with max_reconnect_attempts=-1"
                ) from error
            await asyncio.sleep(RETRY_S)
            return None
        if decision is None:
            return None
        done = CompletedDecisions()
        done.learn(ack)
        return decision if done.verdict(decision) is Completion.FRESH else None

    async def complete(self, decision: ScalingDecision) -> None:
        """Acknowledge a decision as carried out completely. Raises NotStoredError, BusAwayError.

        May be called again.
        """
        replicas = {name: target.replicas for name, target in decision.pools.items()} | decision.other_pools
        scaled = max(decision.decision_id, await self._scaled_id(decision))
        await self._acknowledge(decision, AckStatus.APPLIED, scaled=scaled, replicas=replicas)

    async def fail(self, decision: ScalingDecision, reason: str, retryable: bool = True) -> None:
        """Acknowledge that a decision was not carried out, and whether another try can help.

        Raises NotStoredError, BusAwayError.
        """
        scaled = await self._scaled_id(decision)
        await self._acknowledge(decision, AckStatus.FAILED, scaled=scaled, reason=reason, retryable=retryable)

    async def superseded(self, decision: ScalingDecision) -> bool:
        """Whether a newer decision has taken the place of this one. Raises BusAwayError."""
        newest = await self.get()
        return newest is not None and _key(newest) != _key(decision)

    async def supersede(self, decision: ScalingDecision) -> None:
        """Acknowledge that a newer decision came before this one was carried out. Raises NotStoredError, BusAwayError.

        What counts as carried out stays the last decision that was; completing the newer one completes this one too.
        """
        await self._acknowledge(decision, AckStatus.SUPERSEDED, scaled=await self._scaled_id(decision))

    async def progress(self, decision: ScalingDecision, done: int, total: int) -> None:
        """Report progress: ``done`` of ``total`` parts. Raises NotStoredError, BusAwayError."""
        scaled = await self._scaled_id(decision)
        await self._acknowledge(decision, AckStatus.ACCEPTED, scaled=scaled, done=done, total=total)

    async def _scaled_id(self, decision: ScalingDecision) -> int:
        ack = await self.scaled()
        return ack.scaled_decision_id if ack and ack.incarnation == decision.incarnation else -1

    async def _acknowledge(
        self,
        decision: ScalingDecision,
        status: AckStatus,
        *,
        scaled: int,
        reason: str = "",
        retryable: bool = True,
        replicas: dict[str, int] | None = None,
        done: int | None = None,
        total: int | None = None,
    ) -> None:
        applied = status is AckStatus.APPLIED
        ack = ScalingAck(
            time=datetime.now(UTC),
            deployment=self._deployment,
            decision_id=decision.decision_id,
            scaled_decision_id=scaled,
            incarnation=decision.incarnation,
            status=status,
            reason=reason,
            retryable=retryable,
            num_prefill_workers=decision.num_prefill_workers if applied else -1,
            num_decode_workers=decision.num_decode_workers if applied else -1,
            replicas=replicas or {},
            done=done,
            total=total,
            actuator=self._bus.settings.name,
        )
        # Unique to this call: a second failure within the duplicate window must not be dropped.
        msg_id = f"{self._deployment}-{decision.incarnation}-{decision.decision_id}-{uuid.uuid4().hex[:12]}"
        await publish(self._bus, self._ack_subject, ack, msg_id, self.traceparent(decision))


def _key(decision: ScalingDecision) -> tuple[str, int]:
    return decision.incarnation, decision.decision_id


async def _woken(wake: asyncio.Event) -> None:
    # A wake-up can be lost with a connection, so check again after a while.
    with suppress(TimeoutError):
        async with asyncio.timeout(RECHECK_S):
            await wake.wait()
    wake.clear()
