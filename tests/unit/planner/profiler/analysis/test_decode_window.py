"""ITL from instants of tokens: only where all requests decode, and never with a prefill in it."""

from __future__ import annotations

import random

import pytest

from planner.profiler.analysis.decode_window import StreamedAnswer, decode_window


def answer(first_s: float, gap_s: float, tokens: int = 20, per_piece: int = 1) -> StreamedAnswer:
    pieces = tuple(first_s + i * gap_s for i in range(tokens // per_piece))
    return StreamedAnswer(0.0, pieces, 100, tokens)


def test_answers_in_step_have_the_gap_as_their_itl() -> None:
    window = decode_window([answer(0.1, 0.02), answer(0.14, 0.02)])
    assert window.together == 2
    assert window.itl_ms == pytest.approx(20.0)
    # From the first token of the last request to the end of the first.
    assert (window.begin_s, window.end_s) == pytest.approx((0.14, 0.48))


def test_the_time_until_the_last_prefill_is_over_does_not_count() -> None:
    slow_start = StreamedAnswer(0.0, (*(i * 0.5 for i in range(4)), *(2.0 + i * 0.01 for i in range(20))), 100, 24)
    late = StreamedAnswer(0.0, tuple(2.0 + i * 0.01 for i in range(24)), 100, 24)
    assert decode_window([slow_start, late]).itl_ms == pytest.approx(10.0)


def test_tokens_that_arrive_late_hardly_move_the_itl() -> None:
    steady = answer(0.1, 0.01, tokens=40)
    rng = random.Random(7)
    late = [at_s + (rng.uniform(0, 0.015) if rng.random() < 0.3 else 0.0) for at_s in steady.piece_s]
    # What ends the window comes late: by its ends alone the ITL is 4 % too long.
    late[-1] = steady.piece_s[-1] + 0.015
    pieces = tuple(sorted(late))
    assert (pieces[-1] - pieces[0]) / 39 == pytest.approx(0.0104, rel=0.01)
    itl_ms = decode_window([StreamedAnswer(0.0, pieces, 100, 40)]).itl_ms
    assert itl_ms == pytest.approx(10.0, rel=0.005)


def test_steps_that_grow_have_their_mean_as_itl() -> None:
    pieces = tuple(0.1 + 0.01 * i + 0.0001 * i * i for i in range(41))
    itl_ms = decode_window([StreamedAnswer(0.0, pieces, 100, 41)]).itl_ms
    assert itl_ms == pytest.approx((pieces[-1] - pieces[0]) / 40 * 1000, rel=0.001)


def test_several_tokens_in_a_piece_are_counted_by_the_usage() -> None:
    assert decode_window([answer(0.1, 0.06, tokens=60, per_piece=3)]).itl_ms == pytest.approx(20.0)


def test_requests_that_wait_for_a_place_are_seen_and_not_measured() -> None:
    first = [answer(0.1, 0.02) for _ in range(3)]
    queued = [answer(0.6, 0.02) for _ in range(3)]
    assert decode_window([*first, *queued]).together == 3
    window = decode_window([*first, *queued])
    assert window.itl_ms is None
    assert window.begin_s == window.end_s


def test_too_short_an_overlap_is_no_measurement() -> None:
    window = decode_window([answer(0.0, 0.02), answer(0.35, 0.02)])
    assert window.together == 2
    assert window.itl_ms is None


def test_ttft_is_from_the_request_to_the_first_token() -> None:
    assert answer(0.25, 0.01).ttft_ms == pytest.approx(250.0)
    with pytest.raises(ValueError, match="without a token"):
        decode_window([StreamedAnswer(0.0, (), 1, 0)])
