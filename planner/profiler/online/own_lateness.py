"""How late this process is woken while it measures: on a busy machine every instant that it notes is late by that."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable

from planner.profiler.online.beside import WatchedBeside

EVERY_S = 0.005


class OwnLateness(WatchedBeside):
    """Sleeps again and again while its block runs. ``clock``: seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._late_s: list[float] = []

    @property
    def late_ms(self) -> float | None:
        """On average; None before the first sleep is over."""
        return statistics.mean(self._late_s) * 1000.0 if self._late_s else None

    async def _watch(self) -> None:
        while True:
            began_s = self._clock()
            await asyncio.sleep(EVERY_S)
            self._late_s.append(max(0.0, self._clock() - began_s - EVERY_S))
