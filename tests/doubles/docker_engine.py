"""A Docker engine of the tests' own: its socket, its data and its processes live and end with a temporary folder.

Its network is its own too. On the bridge that every engine shares by default, a container that an earlier engine left
when it was killed keeps its address, and answers in the place of ours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 60.0
DRIVERS = ("overlay2", "vfs")
"""The second copies every layer, so that a build takes minutes; it works on any file system, also in a container."""
OWNED = re.compile(r"wst(\d+)")
"""A bridge of ours, with the id of the process that made it."""


def why_not() -> str | None:
    """Why no engine can be started here, or None."""
    if shutil.which("dockerd") is None:
        return "no Docker engine on this machine (Debian: docker.io)"
    if shutil.which("setpriv") is None:
        return "no `setpriv` command on this machine (Debian: util-linux)"
    if shutil.which("ip") is None:
        return "no `ip` command on this machine (Debian: iproute2)"
    if os.geteuid() != 0:
        return "a Docker engine is started as root only"
    return None


@contextmanager
def engine(folder: Path) -> Iterator[str]:
    """Start an engine; the address of its socket. Raises RuntimeError with its last words when it does not start."""
    with own_bridge() as bridge:
        host, process = _started(folder, bridge)
        try:
            yield host
        finally:
            _end(process)
            _clear(folder)


@contextmanager
def own_bridge() -> Iterator[str]:
    """A bridge of this process; those of processes that have ended without taking theirs away go first."""
    used = set()
    for link in json.loads(_ip("-json", "address")):
        owner = OWNED.fullmatch(link["ifname"])
        if owner is not None and not Path(f"/proc/{owner[1]}").exists():
            _take_away(link["ifname"])
        else:
            used |= {each["local"] for each in link["addr_info"]}
    free = (f"10.231.{number}.1" for number in range(1, 255))
    bridge, address = f"wst{os.getpid()}", next(each for each in free if each not in used)
    _ip("link", "add", bridge, "type", "bridge")
    try:
        _ip("address", "add", f"{address}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        yield bridge
    finally:
        _take_away(bridge)


def _take_away(bridge: str) -> None:
    for table in ("filter", "nat"):
        for rule in _run("iptables", "-w", "-t", table, "-S").splitlines():
            if bridge in rule.split():
                _run("iptables", "-w", "-t", table, *rule.replace("-A", "-D", 1).split())
    for port in json.loads(_ip("-json", "link", "show", "master", bridge)):
        _ip("link", "delete", port["ifname"])
    _ip("link", "delete", bridge)


def _ip(*command: str) -> str:
    return _run("ip", *command)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def _started(folder: Path, bridge: str) -> tuple[str, subprocess.Popen[bytes]]:
    socket, log = folder / "docker.sock", folder / "dockerd.log"
    command = [
        # The engine gets SIGTERM when the process of its test ends, also where that is killed.
        *("setpriv", "--pdeathsig", "TERM", "--"),
        "dockerd",
        f"--host=unix://{socket}",
        f"--data-root={folder / 'data'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'pid'}",
        "--containerd-namespace=wattscale-tests",
        f"--bridge={bridge}",
    ]
    for driver in DRIVERS:
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [*command, f"--storage-driver={driver}"], stdout=sink, stderr=sink, start_new_session=True
            )
        if _until_ready(process, socket):
            return f"unix://{socket}", process
        _end(process)
    words = log.read_text(errors="replace").splitlines()[-3:]
    raise RuntimeError(f"dockerd did not start: {' | '.join(words)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _clear(folder: Path) -> None:
    """Take away what the engine leaves: a mounted network namespace, which nothing can delete, and its images."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in sorted((one for one in mounts if one.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", point], capture_output=True, timeout=60, check=False)
    for part in ("data", "exec"):
        shutil.rmtree(folder / part, ignore_errors=True)


def _until_ready(process: subprocess.Popen[bytes], socket: Path) -> bool:
    """Whether it answers before it ends, and in time."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if socket.exists():
            asked = subprocess.run(
                ["docker", "--host", f"unix://{socket}", "info"], capture_output=True, timeout=60, check=False
            )
            if asked.returncode == 0:
                return True
        time.sleep(0.1)
    return False
