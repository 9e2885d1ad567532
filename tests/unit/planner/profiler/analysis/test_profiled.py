"""What a run could not settle is listed in a line each."""

from __future__ import annotations

from dataclasses import replace

from planner.profiler.analysis.profiled import unsettled
from planner.profiler.analysis.repeats import QUICK_REPEATS, RepeatEstimate
from tests.unit.planner.profiler.rows import profiled


def test_a_settled_run_has_nothing_to_list() -> None:
    assert unsettled(profiled(watts=500), QUICK_REPEATS) == ()
    assert unsettled(profiled(), QUICK_REPEATS) == ()


def test_wide_intervals_and_few_power_samples_are_listed() -> None:
    run = profiled(watts=500, samples=7)
    wide = replace(run.table[0], time=RepeatEstimate(25.0, 0.081, 4))
    single = replace(run.table[1], time=RepeatEstimate(45.0, None, 1))
    assert unsettled(replace(run, table=(wide, single, *run.table[2:])), QUICK_REPEATS) == (
        "TP 1 prefill isl 100: the 95 % interval is +-8.1% after 4 repeats; 5% is wanted",
        "TP 1 prefill isl 500: the 95 % interval is not known after 1 repeats; 5% is wanted",
        "the draw of 13 points is the mean of fewer than 100 samples (14 to 14)",
    )
