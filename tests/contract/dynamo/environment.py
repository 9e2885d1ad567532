"""Environments with a release of Dynamo, made when a test first asks for one and kept outside the tree.

That of 0.9.1 sees the packages of the environment that runs the tests and adds what only 0.9.1 needs: so both planners
compute with the same numpy and scipy, and a difference is never a library's. That of 1.6.1 has its runtime alone.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from tests.kept_environment import kept_environment, run

ALONE = ("ai-dynamo==0.9.1",)
"""Without its dependencies: they are an inference server's."""
WITH_DEPENDENCIES = ("pmdarima>=2.1", "pandas", "filterpy>=1.4.5", "scipy>=1.16")
RUNTIME = ("ai-dynamo-runtime==1.6.1",)


def dynamo_python() -> Path:
    """The interpreter with 0.9.1. Skips with the reason where packages cannot be had."""
    wanted = f"{ALONE} {WITH_DEPENDENCIES} {sysconfig.get_path('purelib')}"
    return kept_environment("dynamo-0.9.1", wanted, _add_planner) / "bin" / "python"


def runtime_python() -> Path:
    """The interpreter with the runtime of 1.6.1 and nothing else. Skips with the reason where it cannot be had."""
    return kept_environment("dynamo-runtime-1.6.1", str(RUNTIME), _add_runtime) / "bin" / "python"


def _add_planner(folder: Path) -> None:
    python = folder / "bin" / "python"
    libraries = next(folder.glob("lib/python*/site-packages"))
    (libraries / "tests-environment.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", *ALONE)
    run(str(python), "-m", "pip", "install", "--quiet", *WITH_DEPENDENCIES)


def _add_runtime(folder: Path) -> None:
    run(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", *RUNTIME)
