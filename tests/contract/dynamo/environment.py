"""Environments with a release of Dynamo, made when a test first asks for one and kept outside the tree.

That of 0.9.1 sees the packages of the environment that runs the tests and adds what only 0.9.1 needs: so both planners
compute with the same numpy and scipy, and a difference is never a library's. That of 1.6.1 has its runtime alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ALONE = ("ai-dynamo==0.9.1",)
"""Without its dependencies: they are an inference server's."""
WITH_DEPENDENCIES = ("pmdarima>=2.1", "pandas", "filterpy>=1.4.5", "scipy>=1.16")
RUNTIME = ("ai-dynamo-runtime==1.6.1",)
INSTALL_WITHIN_S = 600.0
DONE = "complete"
NOT_TO_BE_HAD = ("No matching distribution", "Could not find a version", "onnection", "timed out", "Temporary failure")
"""What pip says where it reaches no registry, or one without the packages. Anything else is a fault of ours."""


def cache_folder() -> Path:
    """Where environments are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "wattscale"


def dynamo_python() -> Path:
    """The interpreter with 0.9.1. Skips with the reason where packages cannot be had."""
    return _kept("dynamo-0.9.1", f"{ALONE} {WITH_DEPENDENCIES} {sysconfig.get_path('purelib')}", _add_planner)


def runtime_python() -> Path:
    """The interpreter with the runtime of 1.6.1 and nothing else. Skips with the reason where it cannot be had."""
    return _kept("dynamo-runtime-1.6.1", str(RUNTIME), _add_runtime)


def _kept(name: str, wanted: str, add: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256(f"{wanted} {sys.version}".encode()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test workers share it
        if not (folder / DONE).exists():
            _make(name, folder, add)
    return folder / "bin" / "python"


def _add_planner(folder: Path) -> None:
    python = folder / "bin" / "python"
    libraries = next(folder.glob("lib/python*/site-packages"))
    (libraries / "tests-environment.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", *ALONE)
    _run(str(python), "-m", "pip", "install", "--quiet", *WITH_DEPENDENCIES)


def _add_runtime(folder: Path) -> None:
    _run(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", *RUNTIME)


def _make(name: str, folder: Path, add: Callable[[Path], None]) -> None:
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        add(folder)
    except (OSError, subprocess.SubprocessError) as error:
        text = str(getattr(error, "stderr", "") or error)
        reason = f"no environment with {name}: {(text.strip().splitlines() or [repr(error)])[-1]}"
        if os.environ.get("WATTSCALE_REQUIRE_PARTS") and not any(sign in text for sign in NOT_TO_BE_HAD):
            pytest.fail(reason)
        pytest.skip(reason)
    (folder / DONE).touch()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_WITHIN_S)
