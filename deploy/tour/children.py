"""The processes of a tour: started in sessions of their own, killed by name, and ended together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import replace
from pathlib import Path

from deploy.installed_files import own_module
from deploy.tour.part_process import PartOrder

MODULE = "deploy.tour.part_process"
PATIENCE_S = 0.8
"""After SIGTERM; within the time that an interrupted run may take."""


class Children:
    """``log``: where standard error of all of them goes. ``close`` leaves none behind."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._orders: dict[str, PartOrder] = {}
        self._readers: set[asyncio.Task[None]] = set()
        self._numbers: dict[str, int] = {}
        self.pages: dict[str, str] = {}
        """The dashboard of each planner, by name."""

    async def start(self, order: PartOrder) -> str:
        """Start one. Returns its name: that of the order, numbered from the second start on."""
        kind, number = order.name, self._numbers.get(order.name, 0)
        self._numbers[kind] = number + 1
        # Planners are told apart by their names: one that starts again is another one.
        name = f"{kind}-again-{number}" if number else kind
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *own_module(MODULE),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # An interrupt in the terminal is for this process, which ends the others itself.
                start_new_session=True,
            )
        self._running[name], self._orders[name] = process, order
        if process.stdin is not None:
            process.stdin.write(replace(order, name=name).text().encode())
        reader = asyncio.create_task(self._read(name, process))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        return name

    async def _read(self, name: str, process: asyncio.subprocess.Process) -> None:
        if process.stdout is not None and (line := await process.stdout.readline()):
            self.pages[name] = line.decode().strip()

    def pid(self, name: str) -> int:
        """The process id. Raises KeyError for a name that does not run."""
        return self._running[name].pid

    def names(self) -> list[str]:
        """Those that run."""
        return [name for name, process in self._running.items() if process.returncode is None]

    def ended_by_themselves(self) -> list[str]:
        """Those that ended and were not killed here."""
        return [name for name, process in self._running.items() if process.returncode is not None]

    def words(self) -> str:
        """The last line that one of them wrote to standard error; empty without one."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return lines[-1] if lines else ""

    async def kill(self, name: str) -> PartOrder:
        """SIGKILL, and wait until it is gone. Returns the order to start it again by."""
        process = self._running.pop(name)
        self.pages.pop(name, None)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return self._orders.pop(name)

    async def close(self) -> None:
        """End all: SIGTERM, and SIGKILL for what does not end soon."""
        processes = list(self._running.values())
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        waits = [asyncio.create_task(process.wait()) for process in processes]
        if waits:
            await asyncio.wait(waits, timeout=PATIENCE_S)
        for process in processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        await asyncio.gather(*waits, *self._readers, return_exceptions=True)
        self._running.clear()

    def destroy(self) -> None:
        """End all like a crash, without the event loop."""
        for process in self._running.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
