"""Pauses double up to their limit, differ from caller to caller, and begin again after a success."""

from __future__ import annotations

from bus_schemas.jetstream.tasks.backoff import Backoff, pause_s


def test_pauses_double_up_to_the_longest_and_are_cut_by_half_at_most() -> None:
    backoff = Backoff(first_s=0.1, longest_s=1.0)
    for whole in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert whole / 2 <= backoff.next_s() <= whole


def test_after_a_success_the_next_pause_is_short_again() -> None:
    backoff = Backoff(first_s=0.1, longest_s=10.0)
    for _ in range(6):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 0.1


def test_callers_that_failed_together_wait_differently() -> None:
    assert len({pause_s(1.0, 10.0, 3) for _ in range(100)}) > 50


def test_many_attempts_neither_overflow_nor_exceed_the_limit() -> None:
    assert pause_s(0.05, 5.0, 1_000_000) <= 5.0
