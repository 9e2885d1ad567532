"""Processes of this machine as the kernel lists them: which still run, and whose children they are."""

from __future__ import annotations

from pathlib import Path


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
