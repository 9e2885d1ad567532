"""HPA's formula over 1 to 200 replicas, with its default tolerance and with the one that the manifests set."""

from __future__ import annotations

import pytest

from agent.core.scaling.autoscaler.hpa_formula import Tolerance, lost_from, quantity, recommended

DEFAULT, NONE = Tolerance(), Tolerance(0.0, 0.0)
COUNTS = range(1, 201)


def test_without_tolerance_every_wanted_count_is_reached_from_every_count() -> None:
    for replicas in COUNTS:
        for wanted in COUNTS:
            assert recommended(wanted, replicas, NONE) == wanted
    assert lost_from(NONE) is None


def test_with_the_default_tolerance_single_steps_are_lost_from_ten_replicas_on() -> None:
    for replicas in COUNTS:
        kept = replicas < 10
        assert (recommended(replicas + 1, replicas, DEFAULT) == replicas + 1) is kept, replicas
        assert (recommended(replicas - 1, replicas, DEFAULT) == replicas - 1) is kept, replicas
    assert lost_from(DEFAULT) == 10


def test_with_the_default_tolerance_exactly_the_steps_within_a_tenth_are_lost() -> None:
    for replicas in COUNTS:
        for wanted in COUNTS:
            lost = wanted != replicas and abs(wanted - replicas) * 10 <= replicas
            assert recommended(wanted, replicas, DEFAULT) == (replicas if lost else wanted), (replicas, wanted)


@pytest.mark.parametrize(
    ("tolerance", "expected"), [(Tolerance(0.0, 0.1), 10), (Tolerance(0.1, 0.0), 10), (Tolerance(0.05, 0.0), 20)]
)
def test_one_open_direction_does_not_help_the_other(tolerance: Tolerance, expected: int) -> None:
    assert lost_from(tolerance) == expected


def test_from_no_replicas_the_value_itself_is_recommended() -> None:
    assert [recommended(value, 0, DEFAULT) for value in (0, 1, 7)] == [0, 1, 7]
    assert recommended(0, 5, DEFAULT) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0.0), (0, 0.0), ("0.1", 0.1), ("100m", 0.1), ("5e-2", 0.05), ("50000u", 0.05), (None, None), ("x", None)],
)
def test_a_tolerance_is_read_as_the_api_server_writes_it(text: object, expected: float | None) -> None:
    found = quantity(text)
    assert found == (None if expected is None else pytest.approx(expected))
