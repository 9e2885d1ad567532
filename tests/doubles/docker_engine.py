"""A Docker engine of the tests' own: its socket, its data and its processes live and end with a temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 40.0


def why_not() -> str | None:
    """Why no engine can be started here, or None."""
    if shutil.which("dockerd") is None:
        return "no Docker engine on this machine (Debian: docker.io)"
    if os.geteuid() != 0:
        return "a Docker engine is started as root only"
    return None


@contextmanager
def engine(folder: Path) -> Iterator[str]:
    """Start an engine; the address of its socket. Raises RuntimeError with its last words when it does not start."""
    socket, log = folder / "docker.sock", folder / "dockerd.log"
    command = [
        "dockerd",
        f"--host=unix://{socket}",
        f"--data-root={folder / 'data'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'pid'}",
        "--storage-driver=vfs",
        "--containerd-namespace=wattscale-tests",
    ]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)
    try:
        _until_ready(process, socket, log)
        yield f"unix://{socket}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_ready(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if socket.exists():
            asked = subprocess.run(
                ["docker", "--host", f"unix://{socket}", "info"], capture_output=True, timeout=20, check=False
            )
            if asked.returncode == 0:
                return
        time.sleep(0.1)
    words = log.read_text(errors="replace").splitlines()[-3:]
    raise RuntimeError(f"dockerd did not start: {' | '.join(words)}")
