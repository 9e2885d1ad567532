"""The newest scaling decision of one deployment, and how long ago the bus confirmed that it is the newest.

Must never give a count that may be out of date: an autoscaler that gets an error leaves a workload as it is, one that
gets a 0 scales it away. Acknowledges nothing, for what an autoscaler does afterwards is only observed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from agent.connectors.scaling_channel import decision_of
from agent.core.scaling.autoscaler.external_metrics import MetricRefusedError, WantedPool
from bus_schemas.errors import BusAwayError, NotPermittedError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import last_raw, stored
from bus_schemas.v1 import ScalingDecision

log = logging.getLogger(__name__)
CONFIRMATIONS_PER_AGE = 4.0
RETRY_S = 0.5


class NewestDecision:
    """Run `run`, then ask `counts`. ``namespace``: of Kubernetes; ``max_age_s``: how old a confirmation may be."""

    def __init__(self, bus: Bus, deployment: str, namespace: str, max_age_s: float) -> None:
        self._bus = bus
        self.deployment, self.namespace = deployment, namespace
        self._max_age_s = max_age_s
        self._subject = bus.subjects.decision_scaling(deployment)
        self._news = asyncio.Event()
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._confirmed_s: float | None = None
        self._confirmed = datetime.now(UTC)
        self._unreadable = False
        self._watchers: set[asyncio.Event] = set()
        self.message: ScalingDecision | None = None

    async def run(self) -> None:
        """Read the newest decision at each change, and again before the last confirmation is too old."""
        try:
            while True:
                await self._bus.ready()
                self._news.clear()
                pause_s = self._max_age_s / CONFIRMATIONS_PER_AGE
                try:
                    await self._subscribe()
                    await self._confirm()
                except (BusAwayError, NotPermittedError, NatsError, OSError) as error:
                    log.warning("the newest decision of %s cannot be read: %s", self.deployment, error)
                    pause_s = min(pause_s, RETRY_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._news.wait()
        finally:
            if self._subscription is not None:
                with suppress(NatsError, OSError):
                    await self._subscription.unsubscribe()

    async def _subscribe(self) -> None:
        if self._client is self._bus.nc:
            return
        client, news = self._bus.nc, self._news

        async def on_message(_: Msg) -> None:
            news.set()

        self._subscription = await client.subscribe(self._bus.subjects.stored(self._subject), cb=on_message)
        self._client = client

    @contextmanager
    def watched(self, change: asyncio.Event) -> Iterator[None]:
        """Within the body ``change`` is set whenever the newest decision has been read."""
        self._watchers.add(change)
        try:
            yield
        finally:
            self._watchers.discard(change)

    async def _confirm(self) -> None:
        asked_s = asyncio.get_running_loop().time()
        raw = await last_raw(self._bus, self._subject)
        found = None if raw is None else stored(raw)
        self._unreadable = raw is not None and (found is None or not isinstance(found.message, ScalingDecision))
        if found is not None and isinstance(found.message, ScalingDecision):
            self.message = found.message
        # A stream that was emptied has nothing newer: as with every connector, what was decided stands.
        self._confirmed_s, self._confirmed = asked_s, datetime.now(UTC)
        for change in self._watchers:
            change.set()

    @property
    def missing(self) -> str:
        """Why there is no value now; empty where there is one."""
        if self._confirmed_s is None:
            return "the bus has not been reached yet"
        if not self._bus.connected:
            return "the bus is away"
        age_s = asyncio.get_running_loop().time() - self._confirmed_s
        if age_s > self._max_age_s:
            return f"the bus last confirmed the newest decision {age_s:.0f} s ago, more than {self._max_age_s:g} s"
        if self._unreadable:
            return "the newest decision cannot be read"
        return "" if self.message is not None else "there is no decision yet"

    def decided(self) -> ScalingDecision:
        """The newest decision. Raises MetricRefusedError with 503 where it is not known."""
        missing, message = self.missing, self.message
        if missing or message is None:
            raise MetricRefusedError(503, "ServiceUnavailable", f"{self.deployment}: {missing}")
        return message

    def counts(self) -> tuple[WantedPool, ...]:
        """The wanted replicas of every pool. Raises MetricRefusedError with 503 where they are not known."""
        message = self.decided()
        confirmed = self._confirmed.isoformat(timespec="seconds").replace("+00:00", "Z")
        return tuple(
            WantedPool(self.deployment, self.namespace, pool, count, confirmed)
            for pool, count in sorted(decision_of(message).replicas.items())
        )

    def count(self, pool: str) -> WantedPool:
        """One pool's wanted replicas. Raises MetricRefusedError: 503 where they are not known, 404 for another pool."""
        for one in self.counts():
            if one.pool == pool:
                return one
        raise MetricRefusedError(404, "NotFound", f"the newest decision of {self.deployment} names no pool {pool}")


def served(decisions: Mapping[str, NewestDecision], deployment: str) -> NewestDecision:
    """The decision of a deployment. Raises MetricRefusedError with 404 for one that is not served."""
    if (found := decisions.get(deployment)) is None:
        names = ", ".join(sorted(decisions))
        raise MetricRefusedError(404, "NotFound", f"deployment {deployment} is not served here: {names} is")
    return found
