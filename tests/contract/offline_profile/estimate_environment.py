"""An environment with the package of the extra ``profile-offline``, which is too large for every test run.

It sees the packages of the environment that runs the tests, and adds what only the estimates need.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.command_line import Done
from tests.kept_environment import kept_environment, run
from tests.shared_data import ROOT

PACKAGES = ("aiconfigurator-core==0.12.0", "pandas==3.1.1", "pyarrow==26.0.1")
"""Without their dependencies, which are in the tests' lock."""
COMMANDS_TAKE_S = 300.0


def estimate_python() -> Path:
    """The interpreter with the package. Skips with the reason where it cannot be had."""
    wanted = f"{PACKAGES} {sysconfig.get_path('purelib')}"
    return kept_environment("estimates-0.12.0", wanted, _add) / "bin" / "python"


def run_there(python: Path, commands: Sequence[Sequence[str]]) -> list[Done]:
    """Run commands of `wattscale` one after the other in one process of that environment."""
    ran = subprocess.run(
        [python, "-W", "ignore", "-m", "tests.contract.offline_profile.commands_there"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMANDS_TAKE_S,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [Done(**each) for each in json.loads(ran.stdout.splitlines()[-1])]


def _add(folder: Path) -> None:
    libraries = next(folder.glob("lib/python*/site-packages"))
    (libraries / "tests-environment.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    run(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES)
