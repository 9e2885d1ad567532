"""Processes as the kernel reports them: identity, control group and start time of a process id.

Owns reads below one ``/proc`` root (the host's, wherever it is mounted). A process id alone is never an identity: the
kernel reuses it, so the start time is read before and after and has to be the same.
"""

from __future__ import annotations

from pathlib import Path

from agent.core.cgroup import identify
from agent.core.ownership import Process

START_TIME_FIELD = 22
"""In ``/proc/PID/stat``, counted from 1: clock ticks since boot."""


class ProcFs:
    """A ``/proc`` at ``root``."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = root
        self._known: dict[int, Process] = {}

    def process(self, pid: int) -> Process | None:
        """The process with this id now, or None when there is none (any more)."""
        start = self.start_ticks(pid)
        if start is None:
            self._known.pop(pid, None)
            return None
        known = self._known.get(pid)
        if known is not None and known.start_ticks == start:
            return known
        try:
            text = (self._root / str(pid) / "cgroup").read_text(errors="replace")
        except OSError:
            return None
        if self.start_ticks(pid) != start:
            return None  # The id was reused while it was read: try again later.
        process = self._known[pid] = Process(pid, start, identify(text))
        return process

    def start_ticks(self, pid: int) -> int | None:
        """Field 22 of ``stat``. The name in field 2 may hold spaces and brackets, so fields count from the last one."""
        try:
            stat = (self._root / str(pid) / "stat").read_text(errors="replace")
            return int(stat.rpartition(")")[2].split()[START_TIME_FIELD - 3])
        except (OSError, ValueError, IndexError):
            return None

    def shows_host(self) -> bool:
        """Whether this is the host's ``/proc``: process 1 is in the initial PID namespace, as kernel threads show.

        Process 2 is ``kthreadd`` there and in no other PID namespace.
        """
        try:
            return (self._root / "2" / "comm").read_text().strip() == "kthreadd"
        except OSError:
            return False
