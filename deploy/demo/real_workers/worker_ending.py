"""Ends every process that a run started, however the run itself ends.

Worker processes lead sessions of their own, so no signal of the terminal reaches them. They are found by a variable of
their environment that names the run's folder, which their children inherit; so no record has to be right.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

RUN_FOLDER = "WATTSCALE_UP_FOLDER"
GRACE_S = 0.5
"""From SIGTERM to SIGKILL: whoever waits for an answer then is gone already."""
GONE_S = 5.0
POLL_S = 0.02
GUARD = """read -r _
for file in $(grep -Flxz "$2=$1" /proc/[0-9]*/environ 2>/dev/null); do
  pid="${file#/proc/}"
  kill -KILL "${pid%/environ}" 2>/dev/null
done
rm -rf "$1"
"""
"""Reads a pipe that only this process holds open: when this process ends, in whatever way, its workers are ended."""


def signal_workers(folder: Path, number: signal.Signals) -> list[int]:
    """Signal every process of the run with this folder. Returns their numbers; one that has ended is not among them."""
    mark = f"{RUN_FOLDER}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            held = os.pidfd_open(int(entry.name))
            try:
                # Held, the number cannot pass to another process between this comparison and the signal.
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
                    signal.pidfd_send_signal(held, number)
            finally:
                os.close(held)
    return found


async def end_workers(folder: Path) -> None:
    """End every process of the run: SIGTERM, and SIGKILL to those that remain. Returns when none is left."""
    seen: set[int] = set()
    for number, most_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GONE_S)):
        began_s = time.monotonic()
        while (found := signal_workers(folder, number)) and time.monotonic() - began_s < most_s:
            seen.update(found)
            await asyncio.sleep(POLL_S)
    _reap(seen)


def _reap(pids: Iterable[int]) -> None:
    """Those that this process started stay as zombies until they are waited for."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


@asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[None]:
    """A process beside the body that ends the run's processes and removes the folder where this process is killed."""
    guard = await asyncio.create_subprocess_exec(
        *("sh", "-c", GUARD, "sh", str(folder), RUN_FOLDER), stdin=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            guard.kill()
        await guard.wait()
