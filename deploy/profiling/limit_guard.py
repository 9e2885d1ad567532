"""The guard process of a profiling run: it alone sets power limits, and puts back what it found when the run's pipe
closes, or on SIGTERM.

It holds the lock of the node's power agent all the while, so that the two never set limits on the same GPUs. Orders and
answers are lines of JSON on its standard input and output.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TextIO

from agent.drivers.nvml.driver import NvmlDriver
from agent.ports import GpuDriver
from deploy.engine.shared_gpu import NoSharedGpuError
from deploy.profiling.gpu_folder import FolderDriver
from deploy.profiling.held_limits import HeldLimitError, HeldLimits

FILE = "profile-limits.json"
"""Beside the lock file: what was found, for the next run after one that was killed."""


class _TerminatedError(Exception):
    """SIGTERM came."""


def main() -> int:
    """Guard until the input ends. Returns 0 where every limit is what was found, else 1."""
    parser = argparse.ArgumentParser(prog="limit_guard")
    parser.add_argument("--lock-file", type=Path, required=True)
    parser.add_argument("--gpu-folder", type=Path)
    parser.add_argument("gpus", nargs="+")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminated)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        owner = f"process {os.getpid()} of {platform.node()} (wattscale profile, {uuid.uuid4().hex[:12]})"
        lock, before = _locked(args.lock_file)
        driver: GpuDriver = NvmlDriver() if args.gpu_folder is None else FolderDriver(args.gpu_folder, time.monotonic)
        limits = HeldLimits(driver, args.gpus, args.lock_file.with_name(FILE), owner=owner, before=before)
        # Only now: whoever is refused or ends before leaves the lock in the name of the run whose limits may be set.
        os.ftruncate(lock, 0)
        os.pwrite(lock, owner.encode(), 0)
    except (HeldLimitError, NoSharedGpuError) as error:
        _answer({"refused": str(error)})
        return 1
    except _TerminatedError:
        return 0
    try:
        try:
            _guard(limits, sys.stdin)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except _TerminatedError:
        pass
    finally:
        left = limits.restore()
        os.close(lock)
    for line in left:
        print(line, file=sys.stderr, flush=True)
    _answer({"left": list(left)})
    return 1 if left else 0


def _guard(limits: HeldLimits, orders: TextIO) -> None:
    """Carry out orders until there are no more."""
    found = {
        gpu: {"found_mw": limits.found_mw[gpu], "min_mw": info.min_mw, "max_mw": info.max_mw, "model": info.model}
        for gpu, info in limits.infos.items()
    }
    _answer({"found": found})
    for line in orders:
        order = json.loads(line)
        carry_out: Callable[[dict[str, int]], None] = limits.set if "set" in order else limits.check
        try:
            carry_out(order.get("set") or order["check"])
        except HeldLimitError as error:
            _answer({"refused": str(error)})
        else:
            _answer({"done": True})


def _locked(path: Path) -> tuple[int, str]:
    """The agent's lock, and who held it last. Raises HeldLimitError where it is held or cannot be taken."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HeldLimitError(f"--lock-file {path}: cannot be opened: {error.strerror or error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, 100, 0).decode(errors="replace").strip() or "a process without a name"
        os.close(file)
        raise HeldLimitError(
            f"{path} is held by {holder}: this node's GPUs have a power agent, which sets their limits; name its bus "
            "with --nats-url, so that its planner holds the caps, or stop it while profiling with --caps"
        ) from None
    return file, os.pread(file, 1000, 0).decode(errors="replace")


def _answer(content: dict[str, object]) -> None:
    """A line to the profiler, which may be gone."""
    try:
        print(json.dumps(content), flush=True)
    except OSError:
        # Python would flush it again at its end, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminated(*_: object) -> NoReturn:
    """Once: a second signal must not end what puts limits back."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _TerminatedError


if __name__ == "__main__":
    sys.exit(main())
