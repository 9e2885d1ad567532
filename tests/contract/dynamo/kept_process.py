"""A process that is started again whenever it ends, as a service manager would."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PAUSE_S = 0.2


class KeptProcess:
    """``async with process.kept()``. ``printed``: the lines of its output, of all its lives."""

    def __init__(self, *command: str, environment: dict[str, str]) -> None:
        self._command, self._environment = command, environment
        self._process: asyncio.subprocess.Process | None = None
        self.printed: list[str] = []
        self.starts = 0

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[KeptProcess]:
        task = asyncio.create_task(self._keep())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.kill()
            if self._process is not None:
                await self._process.wait()

    def kill(self) -> None:
        """SIGKILL, where it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _keep(self) -> None:
        while True:
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env={**os.environ, **self._environment}, stdout=pipe
            )
            self.starts += 1
            assert self._process.stdout is not None
            async for line in self._process.stdout:
                self.printed.append(line.decode().strip())
            await self._process.wait()
            await asyncio.sleep(PAUSE_S)
