"""Environments and tools that tests start, made when a test first asks for one and kept outside the tree."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

INSTALL_WITHIN_S = 600.0
DONE = "complete"
NOT_TO_BE_HAD = ("No matching distribution", "Could not find a version", "onnection", "timed out", "Temporary failure")
"""What pip says where it reaches no registry, or one without the packages. Anything else is a fault of ours."""


def cache_folder() -> Path:
    """Where environments are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "wattscale"


def kept_environment(name: str, wanted: str, add: Callable[[Path], None]) -> Path:
    """The folder of a virtual environment that ``add`` filled; made anew where ``wanted`` or Python changed. Skips with
    the reason where packages cannot be had."""
    digest = hashlib.sha256(f"{wanted} {sys.version}".encode()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test workers share it
        if not (folder / DONE).exists():
            _make(name, folder, add)
    return folder


def _make(name: str, folder: Path, add: Callable[[Path], None]) -> None:
    try:
        run(sys.executable, "-m", "venv", "--clear", str(folder))
        add(folder)
    except (OSError, subprocess.SubprocessError) as error:
        text = str(getattr(error, "stderr", "") or error)
        reason = f"no environment with {name}: {(text.strip().splitlines() or [repr(error)])[-1]}"
        if os.environ.get("WATTSCALE_REQUIRE_PARTS") and not any(sign in text for sign in NOT_TO_BE_HAD):
            pytest.fail(reason)
        pytest.skip(reason)
    (folder / DONE).touch()


def run(*command: str) -> None:
    """Run a command. Raises CalledProcessError with its standard error, or TimeoutExpired."""
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_WITHIN_S)
