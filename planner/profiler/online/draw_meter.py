"""The draw of an engine's GPUs while it is measured: samples at an interval, and their mean in a span of time."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from planner.profiler.online.beside import WatchedBeside


class DrawSource(Protocol):
    """Reads the draw of all GPUs of one engine."""

    every_s: float
    """Seconds between two samples."""

    async def watts(self) -> float | None:
        """The sum of their draws now; None where it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class MeanDraw:
    """The mean of some samples; None without one."""

    watts: float | None
    samples: int


class DrawMeter(WatchedBeside):
    """Samples while its block runs; none without a source. ``clock``: seconds, in which spans are asked for."""

    def __init__(self, source: DrawSource | None, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._samples: list[tuple[float, float]] = []

    def mean(self, begin_s: float = -math.inf, end_s: float = math.inf) -> MeanDraw:
        """Of the samples that were read from ``begin_s`` to ``end_s``; of all where nothing is given."""
        found = [watts for at_s, watts in self._samples if begin_s <= at_s <= end_s]
        return MeanDraw(statistics.mean(found) if found else None, len(found))

    async def _watch(self) -> None:
        while self._source is not None:
            await asyncio.sleep(self._source.every_s)
            watts = await self._source.watts()
            if watts is not None:
                self._samples.append((self._clock(), watts))
