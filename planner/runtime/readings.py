"""Reads all deployments' metrics once a tick, on the clock's own grid. Never holds a reaction up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from planner.domain.ids import DeploymentId
from planner.domain.observation import DeploymentObservation
from planner.ports import Clock, Observer
from planner.runtime.cancelling import heed_cancellation

log = logging.getLogger(__name__)

SHORTEST_PART = 0.2
"""Of an interval: a first reading closer than this to the next tick would make that tick's rates mostly noise."""

Readings = Mapping[DeploymentId, DeploymentObservation]


class Reader:
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

    def take(self) -> Readings | None:
        """Readings that no step has seen yet, once."""
        readings, self._slot = self._slot, None
        return readings

    async def run(self) -> None:
        """Until cancelled. Begins with a reading that only later ones are compared to."""
        await self._observe()
        while True:
            await asyncio.sleep(self._pause_s(self._clock()))
            self._slot = await self._observe()
            heed_cancellation()
            self._ready()

    def _pause_s(self, now_s: float) -> float:
        left = self._interval_s - now_s % self._interval_s
        return left if left >= self._interval_s * SHORTEST_PART else left + self._interval_s

    async def _observe(self) -> Readings:
        now_s = self._clock()
        seen = await asyncio.gather(*(self._one(observer, now_s) for observer in self._observers))
        return {
            observer.deployment: readings
            for observer, readings in zip(self._observers, seen, strict=True)
            if readings is not None
        }

    async def _one(self, observer: Observer, now_s: float) -> DeploymentObservation | None:
        """One deployment; None (unknown) where the observer fails or takes too long."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await observer.observe(now_s)
        except TimeoutError:
            log.warning("metrics of %s were not read within %.1f s", observer.deployment, self._timeout_s)
        except Exception:
            log.exception("metrics of %s could not be read", observer.deployment)
        return None
