"""The draw of an engine's GPUs while it is measured: samples at an interval, and their mean."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol, Self


class DrawSource(Protocol):
    """Reads the draw of all GPUs of one engine."""

    every_s: float
    """Seconds between two samples."""

    async def watts(self) -> float | None:
        """The sum of their draws now; None where it cannot be read."""
        ...


class DrawMeter:
    """Samples while its block runs. Without a source it measures nothing."""

    def __init__(self, source: DrawSource | None) -> None:
        self._source = source
        self._task: asyncio.Task[None] | None = None
        self._sum = 0.0
        self.samples = 0

    @property
    def mean_watts(self) -> float | None:
        """The mean of the samples; None without one."""
        return self._sum / self.samples if self.samples else None

    async def __aenter__(self) -> Self:
        if self._source is not None:
            self._task = asyncio.create_task(self._sample(self._source))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _sample(self, source: DrawSource) -> None:
        while True:
            await asyncio.sleep(source.every_s)
            watts = await source.watts()
            if watts is not None:
                self._sum += watts
                self.samples += 1
