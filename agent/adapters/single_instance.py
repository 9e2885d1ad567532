"""At most one active agent per node: a lock on a file of the host that all agents are configured with.

Owns the lock. An agent that waits for it has not touched any GPU. Two active agents would each receive some of the
node's decisions, and the one with the older grant would restore its limit.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

log = logging.getLogger(__name__)
RETRY_S = 1.0


@asynccontextmanager
async def single_instance(path: Path | None, *, retry_s: float = RETRY_S) -> AsyncIterator[None]:
    """Wait until no other process locks ``path``, then hold the lock. ``None`` disables it.

    Raises OSError if the file cannot be opened.

    The kernel releases the lock when the process ends, however it ends, so there is nothing to clean up.
    """
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        logged = False
        while not _locked(file):
            if not logged:
                log.warning("another agent holds %s (%s): waiting until it ends", path, _holder(file))
                logged = True
            await asyncio.sleep(retry_s)
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} of {platform.node()}".encode(), 0)
        yield
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: int) -> str:
    return os.pread(file, 100, 0).decode(errors="replace").strip() or "no name"
