"""The limit that the newest plan gives each GPU of a deployment's pools, from its plan records on the bus."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from nats.errors import Error as NatsError

from agent.connectors.subject_feed import SubjectFeed
from agent.core.scaling.kubernetes.power_limits import PlannedLimit, PlannedLimits, whole_watts
from bus_schemas.errors import BusAwayError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.v1 import PlanRecord

log = logging.getLogger(__name__)
CHECK_S = 5.0
ADVISORY = "advisory"
"""The reason of a pool that is only watched: what its record shows is not in force."""


class PlannedPower:
    """Run `run`; ``wake`` is called with each record. A record that is lost is replaced by the next tick's."""

    def __init__(self, bus: Bus, deployment: str, settle_s: float, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._feed = SubjectFeed(bus, bus.subjects.telemetry_plan(deployment), self._take)
        self.limits = PlannedLimits(settle_s)

    async def run(self) -> None:
        """Receive until cancelled, also after the client was replaced by a new one."""
        while True:
            try:
                await self._feed.subscribe()
            except (BusAwayError, NatsError, OSError) as error:
                log.warning("power limits wait for plan records: %s", error)
            await asyncio.sleep(CHECK_S)

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
