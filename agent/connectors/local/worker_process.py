"""Starts worker processes, recognises them again, and signals them, and only them.

A worker leads a session of its own, so it outlives the connector and its children can be ended with it. A process id
alone is never an identity: before each signal the process is held by a descriptor and its start time compared.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.drivers.procfs import ProcFs

MARK = "WATTSCALE_WORKER"
_OURS = "WATTSCALE_"
_PROC = Path("/proc")


class WorkerStartError(Exception):
    """A command that cannot be run; ``str()`` says why."""


def environment_of(
    own: Mapping[str, str], template: Mapping[str, str], gpus: Sequence[str], mark: str
) -> dict[str, str]:
    """A worker's environment: ours without Wattscale's variables (one may be a password), its GPUs, the template's."""
    inherited = {name: value for name, value in own.items() if not name.startswith(_OURS)}
    return {**inherited, "CUDA_VISIBLE_DEVICES": ",".join(gpus), **template, MARK: mark}


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders replaced; other braces (JSON) stay."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


class WorkerProcesses:
    """The processes that this connector started or adopted."""

    def __init__(self, proc: ProcFs | None = None) -> None:
        self._proc = proc or ProcFs()
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path | None, log_file: Path
    ) -> tuple[int, int]:
        """Start a process. Returns (process id, start time in ticks). Raises WorkerStartError."""
        try:
            with log_file.open("ab") as log:
                child = subprocess.Popen(  # noqa: S603 - the operator's own command
                    command,
                    env=dict(environment),
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            raise WorkerStartError(f"{command[0]} cannot be started: {error}") from error
        self._children[child.pid] = child
        return child.pid, self._proc.start_ticks(child.pid) or 0

    def find(self, mark: str) -> tuple[int, int] | None:
        """The session leader that carries ``mark``: a worker whose number was not noted. None where there is none."""
        wanted = f"{MARK}={mark}".encode()
        for entry in _PROC.iterdir():
            if not entry.name.isdecimal():
                continue
            pid = int(entry.name)
            try:
                if os.getsid(pid) == pid and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    return pid, self._proc.start_ticks(pid) or 0
            except OSError:
                continue  # It has ended, or is another user's: not ours.
        return None

    def ended(self, pid: int, start_ticks: int) -> str:
        """How a process ended; empty while it runs. One that another connector started leaves no exit code to us."""
        if pid < 0:
            return "it could not be started"
        child = self._children.get(pid)
        if child is not None:
            code = child.poll()
            if code is None:
                return ""
            return f"by signal {-code}" if code < 0 else f"exit code {code}"
        if self._proc.start_ticks(pid) == start_ticks and not self._is_zombie(pid):
            return ""
        return "its exit code is not known, because another connector had started it"

    def forget(self, pid: int) -> None:
        """The process is gone and needs no further care."""
        self._children.pop(pid, None)

    def terminate(self, pid: int, start_ticks: int) -> None:
        """Ask one process to end (SIGTERM). Nothing happens where it has ended."""
        self._signal(pid, start_ticks, signal.SIGTERM, group=False)

    def kill(self, pid: int, start_ticks: int) -> None:
        """End a process and all of its session's first group at once. Nothing happens where it has ended."""
        self._signal(pid, start_ticks, signal.SIGKILL, group=True)

    def _signal(self, pid: int, start_ticks: int, number: signal.Signals, *, group: bool) -> None:
        try:
            held = os.pidfd_open(pid)
        except OSError:
            return
        try:
            # While the descriptor is open the kernel does not give the number away after this comparison.
            if self._proc.start_ticks(pid) != start_ticks:
                return
            if group and os.getpgid(pid) == pid:
                os.killpg(pid, number)
            else:
                signal.pidfd_send_signal(held, number)
        except ProcessLookupError:
            return
        finally:
            os.close(held)

    def _is_zombie(self, pid: int) -> bool:
        try:
            return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
        except (OSError, IndexError):
            return False
