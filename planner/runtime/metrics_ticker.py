"""Reads all deployments' metrics once a tick, on the clock's own grid. Never holds a reaction up."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from bus_schemas.jetstream.tasks.cancellation import cancellation_kept
from planner.domain.ids import DeploymentId
from planner.domain.observation import DeploymentObservation
from planner.ports import Clock, Observer, Rereader

log = logging.getLogger(__name__)

SHORTEST_PART = 0.2
"""Share of an interval: a first reading closer than this to the next tick would make that tick's rates mostly noise."""

Readings = Mapping[DeploymentId, DeploymentObservation]


class MetricsTicker:
    """Ticks every ``interval_s`` on the clock's own grid, so that a restarted planner ticks when the old one would.

    The newest readings wait in a slot until the decision loop takes them; ``ready`` is called when they are there.
    """

    def __init__(
        self,
        observers: Sequence[Observer],
        interval_s: float,
        timeout_s: float,
        clock: Clock,
        ready: Callable[[], None],
    ) -> None:
        self._observers = observers
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._ready = ready
        self._slot: Readings | None = None
        self._kept = {o.deployment: o for o in observers if isinstance(o, Rereader)}
        self.read_ns: tuple[int, int] | None = None
        """When the newest readings began and ended, in Unix nanoseconds."""
        self.first_s: float | None = None
        """The first tick of this run; earlier ones are not read."""

    def take(self) -> Readings | None:
        """Readings that no step has seen yet, once."""
        readings, self._slot = self._slot, None
        return readings

    async def run(self) -> None:
        """Run until cancelled. Sources that keep no past are read at once, as the base of later differences."""
        tick_s = self.first_s = self._first_s(self._clock())
        await self._observe([each for each in self._observers if each.deployment not in self._kept])
        while True:
            await asyncio.sleep(max(0.0, tick_s - self._clock()))
            with cancellation_kept():
                began_ns = time.time_ns()
                self._slot = await self._observe(self._observers)
                self.read_ns = began_ns, time.time_ns()
            self._ready()
            # A reading that took longer than an interval skips only the ticks that it overran.
            tick_s = max(tick_s + self._interval_s, self._after(self._clock()))

    def _first_s(self, now_s: float) -> float:
        first_s = self._after(now_s)
        near = first_s - now_s < self._interval_s * SHORTEST_PART
        return first_s + self._interval_s if near and len(self._kept) < len(self._observers) else first_s

    def _after(self, now_s: float) -> float:
        """The next instant of the grid."""
        return (math.floor(now_s / self._interval_s) + 1) * self._interval_s

    async def reread(self, name: DeploymentId, then_s: float) -> DeploymentObservation | None:
        """A tick that has passed; None where the deployment's source keeps no past, or does not answer."""
        source = self._kept.get(name)
        return None if source is None else await self._one(name, partial(source.reread, then_s, self._clock()))

    async def _observe(self, observers: Sequence[Observer]) -> Readings:
        now_s = self._clock()
        seen = await asyncio.gather(*(self._one(each.deployment, partial(each.observe, now_s)) for each in observers))
        return {
            observer.deployment: readings
            for observer, readings in zip(observers, seen, strict=True)
            if readings is not None
        }

    async def _one(
        self, name: DeploymentId, read: Callable[[], Awaitable[DeploymentObservation]]
    ) -> DeploymentObservation | None:
        """One deployment; None (unknown) where the observer fails or takes too long.

        The reading begins here: where this task is cancelled before it runs, none is left that nobody awaits.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await read()
        except TimeoutError:
            log.warning("metrics of %s were not read within %.1f s", name, self._timeout_s)
        except Exception:
            log.exception("metrics of %s could not be read", name)
        return None
