"""How many examples a test draws: some in the gate, all at night (``WATTSCALE_NIGHT``, set by ``--nightly``)."""

from __future__ import annotations

import os

NIGHT = bool(os.environ.get("WATTSCALE_NIGHT"))


def examples(gate: int, night: int) -> int:
    """``night`` in a nightly run, else ``gate``."""
    return night if NIGHT else gate
