"""A stand-in for the command `docker` that records what it is asked, where only the question matters."""

from __future__ import annotations

import os
from pathlib import Path

_SCRIPT = """#!/usr/bin/env bash
echo "$*" >>"$RECORD"
case "$1 $2" in "image inspect") echo 1000 ;; *) echo sha256:made ;; esac
"""


def recorded_docker(folder: Path, record: Path) -> dict[str, str]:
    """Variables with which `docker` writes its arguments to ``record``, a line per call; made in ``folder``."""
    folder.mkdir(exist_ok=True)
    (folder / "docker").write_text(_SCRIPT)
    (folder / "docker").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "RECORD": str(record)}
