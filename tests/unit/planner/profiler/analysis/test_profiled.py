"""What a run could not settle is listed in a line each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.profiler.analysis.profiled import unsettled
from planner.profiler.analysis.repeats import QUICK_REPEATS, RepeatEstimate
from planner.profiler.analysis.sweep import Point
from planner.profiler.analysis.tables import MeasuredRepeat, rows
from tests.unit.planner.profiler.rows import profiled


def test_a_settled_run_has_nothing_to_list() -> None:
    assert unsettled(profiled(watts=500), QUICK_REPEATS) == ()
    assert unsettled(profiled(), QUICK_REPEATS) == ()


def prefill(ms: float, engine_ms: float | None, late_ms: float | None = None) -> MeasuredRepeat:
    return MeasuredRepeat(Point(1, "prefill", 100), ms, 100.0, engine_ms=engine_ms, late_ms=late_ms)


def test_the_engines_own_clock_counts_where_it_states_every_time() -> None:
    (busy,) = rows([prefill(120.0, 80.0), prefill(140.0, 80.4)])
    assert busy.time.value == pytest.approx(80.2)
    assert busy.later_ms == pytest.approx(49.8)
    (mixed,) = rows([prefill(120.0, 80.0), prefill(140.0, None)])
    assert mixed.time.value == pytest.approx(130.0)
    assert mixed.later_ms is None


def test_a_machine_that_is_too_busy_to_measure_is_named() -> None:
    run = profiled()
    (busy,) = rows([prefill(120.0, 80.0), prefill(140.0, 80.4)])
    (near,) = rows([prefill(82.0, 80.0), prefill(82.0, 80.4)])
    (line,) = unsettled(replace(run, table=(near, busy, *run.table)), QUICK_REPEATS)
    assert line == (
        "TTFT is by the engine's own clock; here first tokens came up to 50 ms later (TP 1 prefill isl 100, 62% of its "
        "time): this machine is busy, or the engine is far away"
    )
    (blind,) = rows([prefill(120.0, None, 9.0), prefill(120.0, None, 8.0)])
    (line,) = unsettled(replace(run, table=(blind, *run.table)), QUICK_REPEATS)
    assert line == (
        "TTFT is too long by 8.5 ms or more (TP 1 prefill isl 100): the engine states none of its own, and this "
        "machine was so busy that the profiler was woken that late; measure again when nothing else runs on it"
    )


def test_wide_intervals_and_few_power_samples_are_listed() -> None:
    run = profiled(watts=500, samples=7)
    wide = replace(run.table[0], time=RepeatEstimate(25.0, 0.081, 4))
    single = replace(run.table[1], time=RepeatEstimate(45.0, None, 1))
    assert unsettled(replace(run, table=(wide, single, *run.table[2:])), QUICK_REPEATS) == (
        "TP 1 prefill isl 100: the 95 % interval is +-8.1% after 4 repeats; 5% is wanted",
        "TP 1 prefill isl 500: the 95 % interval is not known after 1 repeats; 5% is wanted",
        "the draw of 13 points is the mean of fewer than 100 samples (14 to 14)",
    )
