"""A user without a history: a command that names no bus must not find that of a run beside the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def no_bus_known(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """No address, no login, no context and no last run of this machine; ``folder`` is where they would be."""
    for name in [name for name in os.environ if name.startswith("WATTSCALE_NATS_")]:
        patch.delenv(name)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        patch.setenv(name, str(folder / name))
