"""The previous release's code, taken from this repository's history where it is there."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.contract.previous.previous_contract import RELEASE

ROOT = Path(__file__).resolve().parents[3]
OLD_MAIN = ("-m", "deploy.cli.main")


def checked_out(commit: str, folder: Path) -> Path:
    """The tree of a commit in a folder. Raises CalledProcessError where the history does not have it."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", commit]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def previous_code(folder: Path) -> Path:
    """The code whose contract the fixtures are of. Skips where there is no history with it, as in a shallow clone."""
    commits = dict(line.split() for line in (RELEASE / "COMMITS").read_text(encoding="utf-8").splitlines())
    try:
        return checked_out(commits["contract"], folder)
    except (OSError, subprocess.SubprocessError):
        pytest.skip(f"no history with {commits['contract']}, the previous release")
