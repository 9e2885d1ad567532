"""The previous release's code, taken from this repository's history where it is there."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OLD_MAIN = ("-m", "deploy.cli.main")


def checked_out(commit: str, folder: Path) -> Path:
    """The tree of a commit in a folder. Raises CalledProcessError where the history does not have it."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", commit]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder
