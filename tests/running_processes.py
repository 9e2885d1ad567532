"""Processes of this machine: which still run, whose children they are, and which end together with this one."""

from __future__ import annotations

import subprocess
from pathlib import Path

WATCHER = 'read -r _; kill -KILL "$1" 2>/dev/null'
"""Reads a pipe that only this process holds open."""


def gone(pid: int) -> bool:
    """Whether no such process runs; one that only waits to be reaped has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children(pid: int, program: str = "") -> list[int]:
    """The direct children of a process. ``program``: only those whose name contains it."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if not program or program in Path(f"/proc/{child}/comm").read_text()]


def ends_with_this_process(pid: int) -> subprocess.Popen[bytes]:
    """Have a process killed when this one ends, in whatever way; `let_live` takes it back."""
    return subprocess.Popen(
        ("sh", "-c", WATCHER, "sh", str(pid)), stdin=subprocess.PIPE, bufsize=0, start_new_session=True
    )


def let_live(watcher: subprocess.Popen[bytes]) -> None:
    """Done before the process ends otherwise: afterwards its id may belong to another."""
    with watcher:
        watcher.kill()
