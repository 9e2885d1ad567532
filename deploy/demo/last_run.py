"""Remembers the bus address of this user's last `wattscale up`, so that client commands need no address.

Holds an address and a prefix, never a secret; an unreadable file counts as none.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LastRun:
    """The bus of a running (or the last) `up`. ``pid`` tells whether it still runs."""

    nats_url: str
    prefix: str
    pid: int
    site: str
    deployment: str


def _path() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "wattscale" / "last-up.json"


def remember(last: LastRun) -> None:
    """Write the record. If the home directory is not writable, only this convenience is lost, not the run."""
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{last.pid}")
        draft.write_text(json.dumps(asdict(last)))
        draft.replace(path)
    except OSError:
        return


def forget(pid: int) -> None:
    """Remove the record if it is still that of process ``pid``."""
    last = last_known()
    if last is not None and last.pid == pid:
        _path().unlink(missing_ok=True)


def last_known() -> LastRun | None:
    """The record; None if there is none, or it cannot be read."""
    try:
        return LastRun(**json.loads(_path().read_text()))
    except (OSError, ValueError, TypeError):
        return None
