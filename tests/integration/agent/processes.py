"""A real agent process on the library with NVML's ABI, for tests that kill, stop and restart it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.doubles.nvml.loaded import library_environment
from tests.doubles.nvml.state import FakeNvml


class RunningAgent:
    """``wattscale agent power`` for one node. ``log`` is the file that its standard error goes to."""

    def __init__(self, node: str, url: str, fake: FakeNvml, folder: Path) -> None:
        self._node, self._url, self._fake = node, url, fake
        self.log = folder / "agent.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> RunningAgent:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, environment: Mapping[str, str] | None = None) -> None:
        program = [
            "-m",
            "deploy.cli.main",
            "agent",
            "power",
            "--node",
            self._node,
            "--port",
            "none",
            "--nats-url",
            self._url,
        ]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *program,
                env={
                    **library_environment(self._fake),
                    **(environment or {}),
                    "WATTSCALE_AGENT_TELEMETRY_INTERVAL_S": "0.1",
                },
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        """SIGKILL: no handler runs."""
        if self._process is not None and self._process.returncode is None:
            os.kill(self.pid, signal.SIGCONT)
            self._process.kill()
            await self._process.wait()

    async def end(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(60):
            return await self._process.wait()

    def stop(self) -> None:
        """SIGSTOP: the process stands still, the clock does not."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
