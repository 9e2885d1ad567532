"""The plots are pictures, with those of power only where draw was measured."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from planner.profiler.results.plot_file import DOTS_PER_INCH
from planner.profiler.results.profile_plots import write_plots
from tests.unit.planner.profiler.rows import TARGETS, profiled


@pytest.mark.parametrize(("watts", "more"), [(None, set()), (500.0, {"power_prefill.png", "power_decode.png"})])
def test_plots_are_written(tmp_path: Path, watts: float | None, more: set[str]) -> None:
    files = write_plots(tmp_path, profiled(watts=watts), TARGETS)
    assert {file.name for file in files} == {"prefill_performance.png", "decode_performance.png"} | more
    for file in files:
        content = file.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", content[16:24]) == (8 * DOTS_PER_INCH, 5 * DOTS_PER_INCH)
