"""The limit that the newest plan gives each GPU of a deployment's pools, from its plan records on the bus."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from agent.core.scaling.kubernetes.power_limits import PlannedLimit, PlannedLimits, whole_watts
from bus_schemas.errors import BusAwayError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import last, stored
from bus_schemas.v1 import PlanRecord

log = logging.getLogger(__name__)
CHECK_S = 5.0
ADVISORY = "advisory"
"""The reason of a pool that is only watched: what its record shows is not in force."""


class PlannedPower:
    """Run `run`; ``wake`` is called with each record. A record that is lost is replaced by the next tick's."""

    def __init__(self, bus: Bus, deployment: str, settle_s: float, wake: Callable[[], None]) -> None:
        self._bus, self._wake = bus, wake
        self._subject = bus.subjects.telemetry_plan(deployment)
        self._client: Client | None = None
        self._received = 0
        self.limits = PlannedLimits(settle_s)

    async def run(self) -> None:
        """Receive until cancelled, also after the client was replaced by a new one."""
        while True:
            if self._client is not self._bus.nc and self._bus.connected:
                try:
                    await self._subscribe(self._bus.nc)
                except (BusAwayError, NatsError, OSError) as error:
                    log.warning("power limits wait for plan records: %s", error)
            await asyncio.sleep(CHECK_S)

    async def _subscribe(self, client: Client) -> None:
        before = self._received
        subscription = await client.subscribe(self._bus.subjects.stored(self._subject), cb=self._receive)
        try:
            found = await last(self._bus, self._subject)
        except BusAwayError:
            # The next attempt subscribes again.
            await subscription.unsubscribe()
            raise
        if found is not None and self._received == before:
            self._take(found.message)
        self._client = client

    async def _receive(self, raw: Msg) -> None:
        self._received += 1
        with suppress(ValueError):
            found = stored(raw)
            if found is not None:
                self._take(found.message)

    def _take(self, message: object) -> None:
        if isinstance(message, PlanRecord):
            self.limits.take(limits_of(message), time.monotonic())
            self._wake()


def limits_of(record: PlanRecord) -> Mapping[str, PlannedLimit]:
    """By pool. Left out: pools that are only watched, and those without a limit while the site has a budget."""
    found = {}
    for pool, one in record.pools.items():
        if any(reason.code == ADVISORY for reason in one.chain):
            continue
        watts = None if one.cap_watts is None else whole_watts(one.cap_watts)
        if watts is not None or (one.cap_watts is None and record.budget_watts is None):
            found[pool] = PlannedLimit(watts)
    return found
