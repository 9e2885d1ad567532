"""An environment with ai-dynamo 0.9.1, made when a test first asks for it and kept outside the tree.

It sees the packages of the environment that runs the tests and adds what only 0.9.1 needs: so both planners compute
with the same numpy and scipy, and a difference is never a library's.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ALONE = ("ai-dynamo==0.9.1",)
"""Without its dependencies: they are an inference server's."""
WITH_DEPENDENCIES = ("pmdarima>=2.1", "pandas", "filterpy>=1.4.5", "scipy>=1.16")
INSTALL_WITHIN_S = 600.0
DONE = "complete"
NOT_TO_BE_HAD = ("No matching distribution", "Could not find a version", "onnection", "timed out", "Temporary failure")
"""What pip says where it reaches no registry, or one without the packages. Anything else is a fault of ours."""


def cache_folder() -> Path:
    """Where environments are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "wattscale"


def dynamo_python() -> Path:
    """The interpreter of the environment. Skips with the reason where packages cannot be had."""
    wanted = f"{ALONE} {WITH_DEPENDENCIES} {sysconfig.get_path('purelib')} {sys.version}"
    folder = cache_folder() / f"dynamo-0.9.1-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test workers share it
        if not (folder / DONE).exists():
            _make(folder)
    return folder / "bin" / "python"


def _make(folder: Path) -> None:
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        python = folder / "bin" / "python"
        libraries = next(folder.glob("lib/python*/site-packages"))
        (libraries / "tests-environment.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", *ALONE)
        _run(str(python), "-m", "pip", "install", "--quiet", *WITH_DEPENDENCIES)
    except (OSError, subprocess.SubprocessError) as error:
        text = str(getattr(error, "stderr", "") or error)
        reason = f"no environment with ai-dynamo 0.9.1: {(text.strip().splitlines() or [repr(error)])[-1]}"
        if os.environ.get("WATTSCALE_REQUIRE_PARTS") and not any(sign in text for sign in NOT_TO_BE_HAD):
            pytest.fail(reason)
        pytest.skip(reason)
    (folder / DONE).touch()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_WITHIN_S)
