"""SweepProgress: how much is done, and how long the rest takes by what was seen of its phase."""

from __future__ import annotations

from planner.profiler.analysis.sweep import Point
from planner.profiler.analysis.time_left import SweepProgress

PREFILL, DECODE = Point(1, "prefill", 100), Point(1, "decode", 100, 8)


def test_time_left_is_by_phase() -> None:
    progress = SweepProgress()
    assert progress.left_s([PREFILL]) is None
    progress.point_took(PREFILL, 10.0)
    assert progress.left_s([PREFILL, DECODE]) == 20.0
    progress.point_took(DECODE, 60.0)
    assert progress.left_s([PREFILL, DECODE]) == 70.0


def test_the_line() -> None:
    progress = SweepProgress()
    assert progress.line([PREFILL, DECODE], PREFILL) == (
        "[........................] 0/2 points, time left not known yet: TP 1 prefill isl 100"
    )
    progress.point_took(PREFILL, 4000.0)
    assert progress.line([DECODE], DECODE) == (
        "[############............] 1/2 points, about 1 h 6 min left: TP 1 decode isl 100, 8 in flight"
    )
