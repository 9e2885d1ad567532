"""Environments with a release of Dynamo, made when a test first asks for one and kept outside the tree.

That of 0.9.1 sees the packages of the environment that runs the tests and adds what only 0.9.1 needs: so both planners
compute with the same numpy and scipy, and a difference is never a library's. That of 1.6.1 has its runtime alone.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from tests.kept_environment import kept_environment, run

PLANNER = (
    "ai-dynamo==0.9.1",
    "cloudpickle==3.1.3",
    "cython==3.3.1",
    "formulaic==1.2.2",
    "interface-meta==2.0.1",
    "joblib==1.6.0",
    "narwhals==2.29.0",
    "pandas==3.1.1",
    "patsy==1.0.3",
    "pmdarima==2.1.1",
    "scikit-learn==1.9.1",
    "setuptools==80.9.0",
    "statsmodels==0.15.0",
    "threadpoolctl==3.8.0",
)
"""Without the dependencies of the first, which are an inference server's. Each package is pinned, and none that is not
here or in the tests' lock is installed: an index changes, and the comparison should not."""
RUNTIME = ("ai-dynamo-runtime==1.6.1",)


def dynamo_python() -> Path:
    """The interpreter with 0.9.1. Skips with the reason where packages cannot be had."""
    wanted = f"{PLANNER} {sysconfig.get_path('purelib')}"
    return kept_environment("dynamo-0.9.1", wanted, _add_planner) / "bin" / "python"


def runtime_python() -> Path:
    """The interpreter with the runtime of 1.6.1 and nothing else. Skips with the reason where it cannot be had."""
    return kept_environment("dynamo-runtime-1.6.1", str(RUNTIME), _add_runtime) / "bin" / "python"


def _add_planner(folder: Path) -> None:
    python = folder / "bin" / "python"
    libraries = next(folder.glob("lib/python*/site-packages"))
    (libraries / "tests-environment.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", *PLANNER)


def _add_runtime(folder: Path) -> None:
    run(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", *RUNTIME)
