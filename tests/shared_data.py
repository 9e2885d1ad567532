"""Real traces, profiles and power figures that lie beside the checkout, where they do.

The project ships none of them. A test that wants one calls ``shared`` and is skipped, with the reason, on a
machine that has none; in CI the folder must be there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def find_shared(relative: str) -> Path | None:
    """The path of ``relative`` below the shared data folder, or None where there is no such file."""
    roots = [Path(os.environ["WATTSCALE_SHARED"])] if "WATTSCALE_SHARED" in os.environ else []
    roots.append(ROOT.parent / "shared")
    for root in roots:
        path = root / "data" / relative
        if path.exists():
            return path
    return None


def shared(relative: str) -> Path:
    """``find_shared``, or a skip that says what is missing; a failure where CI promises the data."""
    path = find_shared(relative)
    if path is None:
        message = f"no shared data file {relative} beside this checkout (WATTSCALE_SHARED names another folder)"
        if os.environ.get("WATTSCALE_REQUIRE_PARTS"):
            pytest.fail(message)
        pytest.skip(message)
    return path
