"""An estimated profile from times that are given: TP sizes are chosen as from a measurement, and gaps are noted."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from planner.profiler.analysis.recommendation import Targets
from planner.profiler.offline.estimate_points import AskedPoint
from planner.profiler.offline.estimate_run import EstimateOptions, estimated

OPTIONS = EstimateOptions("demo", Targets(2000, 200, 200.0, 20.0), (1, 2, 4), 8192, 256, None)


class NoTimesError(Exception):
    pass


@dataclass
class Linear:
    """Times that ``tp`` GPUs share, with 90 % of the gain."""

    tp: int
    max_kv_tokens: int = 100_000
    inferred: int = 0

    def ms(self, asked: AskedPoint) -> float:
        point = asked.point
        if point.phase == "prefill":
            return (40 + 0.12 * point.isl) / self.tp**0.9
        return (12 + 0.02 * point.in_flight + 0.0001 * point.in_flight * asked.context) / self.tp**0.9


def test_the_tp_sizes_that_meet_the_targets_best_are_swept() -> None:
    profiled = estimated(OPTIONS, Linear, NoTimesError)
    found = profiled.recommendation
    assert (found.prefill.point.tp, found.decode.point.tp) == (2, 2)
    assert found.prefill.time.value == pytest.approx(280 / 2**0.9)
    profile = profiled.profile("demo")
    assert profile.prefill is not None
    assert profile.decode is not None
    assert profile.prefill.ttft_ms == pytest.approx([(40 + 0.12 * isl) / 2**0.9 for isl in profile.prefill.isl_tokens])
    assert 2000 in profile.prefill.isl_tokens
    assert 2100 in profile.decode.context_tokens
    assert max(profile.decode.kv_usage) <= 1
    assert (profile.max_num_seqs, profile.decode.max_kv_tokens) == (256, 100_000)
    assert profiled.notes == ()


def test_a_target_of_the_sweeps_own_lengths_is_no_second_point() -> None:
    options = EstimateOptions("demo", Targets(100, 500, 200.0, 20.0), (1,), 8192, 256, None)
    decode = estimated(options, Linear, NoTimesError).decode()
    loads = list(zip(decode.context_tokens, decode.kv_usage, strict=True))
    assert len(set(loads)) == len(loads)


def test_tp_sizes_without_data_or_memory_are_left_out_with_a_note() -> None:
    def engine(tp: int) -> Linear:
        if tp == 2:
            raise NoTimesError("TP 2: no data")
        return Linear(tp, max_kv_tokens=2000 if tp == 1 else 100_000, inferred=tp)

    profiled = estimated(OPTIONS, engine, NoTimesError)
    assert sorted(profiled.engines) == [4]
    assert profiled.notes == (
        "TP 1: isl 2000 and osl 200 do not fit: the context is 8192 tokens, the KV cache 2000; left out",
        "TP 2: no data; left out",
        "TP 4: 4 estimates are inferred from other kernels: nothing was measured near them",
    )


def test_a_tp_size_whose_times_are_not_known_is_left_out_too() -> None:
    class LinearWithGap(Linear):
        def ms(self, asked: AskedPoint) -> float:
            if self.tp == 2 and asked.point.phase == "decode":
                raise NoTimesError("TP 2 decode: nothing was measured")
            return super().ms(asked)

    profiled = estimated(OPTIONS, LinearWithGap, NoTimesError)
    assert sorted(profiled.engines) == [1, 4]
    assert {row.point.tp for row in profiled.table} == {1, 4}
    assert profiled.notes == ("TP 2 decode: nothing was measured; left out",)


def test_where_no_tp_size_is_left_all_reasons_are_named() -> None:
    def engine(tp: int) -> Linear:
        raise NoTimesError(f"TP {tp}: no data")

    with pytest.raises(ValueError, match=r"^TP 1: no data; TP 2: no data; TP 4: no data$"):
        estimated(OPTIONS, engine, NoTimesError)


def test_a_given_kv_cache_replaces_the_estimated_one() -> None:
    options = EstimateOptions("demo", OPTIONS.targets, (1,), 8192, 256, 50_000)
    assert estimated(options, Linear, NoTimesError).max_kv_tokens == 50_000
