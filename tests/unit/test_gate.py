"""`.ci/run` leaves nothing behind. Its programs are stand-ins here."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.shared_data import ROOT

WITHIN_S = 60.0
MYPY = """#!/bin/sh
trap 'kill $!; echo ended >>"$HERE/types"; exit 1' TERM
sleep 300 &
echo began >>"$HERE/types"
wait
"""
LAW = """#!/bin/sh
until grep -q began "$HERE/types" 2>/dev/null; do sleep 0.05; done
exit 1
"""
FINE = """#!/bin/sh
echo "ok installed"
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the gate, in which types are checked for minutes and the import law is broken."""
    root = tmp_path / "root"
    (root / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", root / ".ci" / "run")
    program(root / "deploy" / "make-venv", FINE)
    for name, text in {"ruff": FINE, "mypy": MYPY, "lint-imports": LAW}.items():
        program(root / ".venv" / "bin" / name, text)
    for name in ("dpkg-query", "node", "npm"):
        program(tmp_path / "bin" / name, FINE)
    (tmp_path / "temporary").mkdir()
    return root


def test_a_step_that_fails_ends_the_check_of_types(checkout: Path) -> None:
    here = checkout.parent
    environment = {name: value for name, value in os.environ.items() if name != "WATTSCALE_VENV"} | {
        "HERE": str(here),
        "PATH": f"{here / 'bin'}:{os.environ['PATH']}",
        "TMPDIR": str(here / "temporary"),
    }
    done = subprocess.run(
        [checkout / ".ci" / "run"], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 1, done
    assert "== import law" in done.stdout
    until_s = time.monotonic() + WITHIN_S
    while (here / "types").read_text() != "began\nended\n":
        assert time.monotonic() < until_s, (here / "types").read_text()
        time.sleep(0.02)
    assert list((here / "temporary").iterdir()) == []
