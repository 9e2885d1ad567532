"""The points of an estimate: steps as in the published sweeps, and only what the assumed engine runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.profiler.offline.estimate_points import AssumedEngine, decode_sweep, prefill_sweep, target_sweep

ENGINE = AssumedEngine(max_context=16_384, max_kv_tokens=249_864, max_in_flight=512)


def test_the_steps_of_the_published_sweeps() -> None:
    assert [each.point.isl for each in prefill_sweep(1, 16_384)] == list(range(100, 15_861, 985))
    decode = decode_sweep(1, ENGINE)
    assert sorted({each.context for each in decode}) == [350, 2997, 5644, 8291, 10938, 13585]
    shortest = [each.point.in_flight for each in decode if each.context == 350]
    assert shortest == [1, 2, 4, 8, 16, 39, 76, 114, 152, 190, 227, 265, 303, 341, 378, 416]


def test_the_targets_points_have_their_lengths() -> None:
    prefill, *decode = target_sweep(2, ENGINE, 3000, 150)
    assert (prefill.point.phase, prefill.point.isl, prefill.context) == ("prefill", 3000, 3000)
    assert {each.context for each in decode} == {3075}
    assert [each.point.in_flight for each in decode][-1] == 249_864 // 3150


@given(max_context=st.integers(1024, 200_000), max_kv_tokens=st.integers(1, 10_000_000), most=st.integers(1, 100_000))
def test_no_point_is_beyond_the_engine_and_none_comes_twice(max_context: int, max_kv_tokens: int, most: int) -> None:
    engine = AssumedEngine(max_context, max_kv_tokens, most)
    points = (*prefill_sweep(4, max_context), *decode_sweep(4, engine))
    assert len(set(points)) == len(points)
    for each in points:
        assert each.point.isl + each.answer_tokens <= max_context
        if each.point.phase == "decode":
            assert 1 <= each.point.in_flight <= most
            assert each.point.in_flight * (each.point.isl + each.answer_tokens) <= max_kv_tokens


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="TP 2: isl 3000 and osl 150 do not fit: the context is 16384 tokens"):
        target_sweep(2, AssumedEngine(16_384, 3000, 512), 3000, 150)
    with pytest.raises(ValueError, match="do not fit: the context is 2000 tokens"):
        target_sweep(2, AssumedEngine(2000, 30_000, 512), 3000, 150)
    with pytest.raises(ValueError, match="max context length 1000: an estimate needs at least 1024 tokens"):
        prefill_sweep(1, 1000)
