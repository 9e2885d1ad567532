"""What is watched beside a measurement, for as long as that takes."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from bus_schemas.jetstream.tasks.task_group import ended


class WatchedBeside:
    """Watches in a task of its own while its block runs. An error there ends the watching, and nothing else."""

    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            await ended(self._task)

    async def _watch(self) -> None:
        raise NotImplementedError
