"""The points of a sweep: within the engine's limits, from end to end, none twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.profiler.analysis.sweep import (
    FULL,
    QUICK,
    EngineLimits,
    Point,
    decode_points,
    narrowed,
    prefill_points,
    spread,
    target_points,
)

LIMITS = EngineLimits(max_context=16_384, max_kv_tokens=450_000, max_in_flight=512)


def test_prefill_goes_from_the_shortest_input_to_the_whole_context() -> None:
    isls = [point.isl for point in prefill_points(4, LIMITS, FULL)]
    assert (isls[0], isls[-1], len(isls)) == (100, 16_383, 16)


def test_decode_goes_from_one_request_to_what_the_kv_cache_holds() -> None:
    points = decode_points(4, LIMITS, FULL)
    contexts = sorted({point.isl for point in points})
    assert (contexts[0], contexts[-1], len(contexts)) == (100, 16_184, 6)
    for isl in contexts:
        loads = [point.in_flight for point in points if point.isl == isl]
        assert (loads[0], loads[-1]) == (1, LIMITS.in_flight(isl, 200))
    assert max(point.in_flight for point in points) == 512
    assert LIMITS.in_flight(16_184, 200) == 26


@given(st.integers(16, 200_000), st.integers(16, 5_000_000), st.integers(1, 1000), st.sampled_from([FULL, QUICK]))
def test_no_point_exceeds_a_limit_and_none_comes_twice(context, kv_tokens, in_flight, size) -> None:
    limits = EngineLimits(context, kv_tokens, in_flight)
    points = (*prefill_points(1, limits, size), *decode_points(1, limits, size))
    assert len(set(points)) == len(points)
    for point in points:
        answer = size.answer_tokens if point.phase == "decode" else 1
        assert point.isl >= 1
        assert point.isl + answer <= context
        assert 1 <= point.in_flight <= in_flight
        assert point.phase == "prefill" or point.in_flight * (point.isl + answer) <= kv_tokens


def test_the_target_has_its_own_lengths_and_mean_context() -> None:
    prefill, *decode = target_points(2, LIMITS, QUICK, 3000, 150)
    assert prefill == Point(2, "prefill", 3000)
    assert {point.isl + QUICK.answer_tokens / 2 for point in decode} == {3000 + 150 / 2}
    with pytest.raises(ValueError, match="isl 16000 and osl 500 do not fit: the engine's context is 16384 tokens"):
        target_points(2, LIMITS, QUICK, 16_000, 500)
    with pytest.raises(ValueError, match=r"leave no room for the \d+ tokens of a measured answer"):
        target_points(2, replace(LIMITS, max_context=FULL.answer_tokens), FULL, 100, 10)


@pytest.mark.parametrize(("isl", "osl"), [(16_374, 10), (16_300, 1), (16_184, 200), (16_183, 200)])
def test_near_the_longest_context_decode_is_measured_as_near_the_target_as_it_fits(isl: int, osl: int) -> None:
    prefill, *decode = target_points(2, LIMITS, FULL, isl, osl)
    assert prefill.isl == isl
    (start,) = {point.isl for point in decode}
    assert start == min(isl + (osl - FULL.answer_tokens) // 2, LIMITS.max_context - FULL.answer_tokens)
    assert isl + osl / 2 - (start + FULL.answer_tokens / 2) <= FULL.answer_tokens / 2


def test_larger_loads_become_what_the_engine_runs_at_once() -> None:
    points = (Point(1, "decode", 100, 4), Point(1, "decode", 100, 9), Point(1, "decode", 100, 20))
    other = (Point(2, "decode", 100, 20), Point(1, "prefill", 100))
    assert narrowed((*points, *other), 1, 6) == (points[0], Point(1, "decode", 100, 6), *other)


def test_spread() -> None:
    assert spread(1, 10, 4) == (1, 4, 7, 10)
    assert spread(1, 3, 9) == (1, 2, 3)
    assert spread(5, 5, 3) == (5,)
    assert spread(1, 9, 1) == (9,)
    assert spread(1, 0, 3) == ()
