"""Repeats: median, interval, and when they end."""

from __future__ import annotations

import random

import pytest

from planner.profiler.analysis.repeats import RepeatRule, estimate, is_done

RULE = RepeatRule(least=3, most=6, narrow=0.02)


def test_one_disturbed_repeat_moves_the_estimate_little() -> None:
    assert estimate([100, 101, 99, 100, 180]).value == 100


def test_equal_repeats_have_no_width_and_one_repeat_has_none_that_is_known() -> None:
    assert estimate([5.0, 5.0, 5.0]).half_width == 0
    assert estimate([5.0]).half_width is None
    assert not estimate([5.0]).is_narrow(RULE)
    with pytest.raises(ValueError, match="no repeats"):
        estimate([])


@pytest.mark.parametrize(
    ("values", "done"),
    [
        ([], False),
        ([10, 10], False),
        ([10, 10, 10], True),
        ([10, 12, 14], False),
        ([10, 12, 14, 11, 13], False),
        ([10, 12, 14, 11, 13, 15], True),
    ],
)
def test_repeats_end_when_the_interval_is_narrow_or_they_are_enough(values, done) -> None:
    assert is_done(values, RULE) is done


def test_the_interval_holds_the_truth_about_as_often_as_it_promises() -> None:
    rng = random.Random(1)
    held = 0
    for _ in range(500):
        found = estimate([rng.gauss(100, 5) for _ in range(10)])
        assert found.half_width is not None
        held += abs(found.value - 100) <= found.half_width * found.value
    assert 0.88 <= held / 500 <= 0.99
