"""The performance model: fits, drops, monotone answers, corrections."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.performance import observed_ratio
from planner.core.performance.decode_model import decode_model
from planner.core.performance.engine_model import engine
from planner.core.performance.prefill_model import prefill_model
from planner.domain.profile import DecodeProfile, PrefillProfile
from tests.shared_data import shared
from tests.unit.planner.core.sizing.test_classic import profile_at
from tests.unit.planner.core.small_site import PROFILE

FOLDERS = (
    "dynamo_h200_8b_fp8_tp1p_tp1d",
    "llama3.1-70b_h100_trtllm_tp4p_tp8d",
    "llama3.1-70b_h200_vllm_tp4p_tp4d",
    "llama3.1-8b_h100_vllm_tp1p_tp1d",
    "llama3.1-8b_h200_vllm_tp1p_tp1d",
    "qwen3-235b-fp8_h200_vllm_tp4p_tp4d",
    "qwen3-32b_h200_vllm_tp1p_tp1d",
    "qwen3-32b_h200_vllm_tp2p_tp2d",
)
GPUS = {"tp8d": 8, "tp4d": 4, "tp2d": 2, "tp1d": 1}


def test_a_line_is_found_exactly() -> None:
    assert PROFILE.decode is not None
    model = decode_model(PROFILE.decode, PROFILE.max_num_seqs, 1)
    assert (model.a_ms, model.b_ms, model.c_ms) == pytest.approx((5.0, 0.02, 3e-5), rel=1e-6)
    assert model.fit_error < 1e-9
    assert model.dropped == 0


@pytest.mark.parametrize("folder", FOLDERS)
def test_real_profiles_follow_the_line(folder: str) -> None:
    profile = profile_at(shared(f"profiles/{folder}"))
    assert profile.decode is not None
    gpus = next(count for name, count in GPUS.items() if folder.endswith(name))
    model = decode_model(profile.decode, None, gpus)
    assert model.fit_error < (0.1 if "235b" in folder else 0.06)  # experts wake up with the batch: less of a line
    assert min(model.a_ms, model.c_ms) > 0


def test_points_that_contradict_themselves_are_dropped() -> None:
    """Two points lie beyond the engine's sequence limit: n / ITL says 32000 and 36943 tokens/s, 19200 were measured."""
    profile = profile_at(shared("profiles/dynamo_h200_8b_fp8_tp1p_tp1d"))
    assert profile.decode is not None
    assert decode_model(profile.decode, None, 1).dropped == 2


def test_a_decode_profile_without_a_good_point_is_refused() -> None:
    with pytest.raises(ValueError, match="no point whose throughput agrees"):
        decode_model(DecodeProfile((0.5,), (1000.0,), (10.0,), (1.0,), 100_000), None, 1)


def test_no_coefficient_is_negative() -> None:
    falling = DecodeProfile(
        kv_usage=(0.1, 0.2, 0.4),
        context_tokens=(1000.0, 1000.0, 1000.0),
        itl_ms=(12.0, 11.0, 10.0),
        tokens_per_s_per_gpu=(10.0 / 12e-3, 20.0 / 11e-3, 40.0 / 10e-3),
        max_kv_tokens=100_000,
    )
    model = decode_model(falling, None, 1)
    assert min(model.a_ms, model.b_ms, model.c_ms) >= 0
    assert model.itl_ms(40, 1000.0) >= model.itl_ms(10, 1000.0)


def test_what_the_engine_holds() -> None:
    assert PROFILE.decode is not None
    model = decode_model(PROFILE.decode, 256, 1)
    assert model.batch_limit(1000.0) == 256
    assert model.batch_limit(8000.0) == 100
    assert model.batch_limit(1e9) == 1
    assert model.covers(12_000.0)
    assert not model.covers(12_001.0)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1, 1e5), st.floats(0.1, 1e4)), min_size=1, max_size=20),
    st.floats(1, 2e5),
    st.floats(0, 2e5),
)
def test_ttft_never_falls_with_length(points: list[tuple[float, float]], isl: float, longer: float) -> None:
    lengths, times = zip(*points, strict=True)
    model = prefill_model(PrefillProfile(lengths, times, (1.0,) * len(points)), None)
    assert model.ttft_ms(isl + longer) >= model.ttft_ms(isl) * (1 - 1e-9)
    assert 0 < model.cost_ms(isl) <= model.ttft_ms(isl) * (1 + 1e-9)


def test_ttft_between_at_and_beyond_points() -> None:
    model = prefill_model(PrefillProfile((1000.0, 2000.0, 4000.0), (10.0, 20.0, 60.0), (0.0, 0.0, 0.0)), 8192)
    assert [model.ttft_ms(isl) for isl in (10, 1000, 1500, 3000, 4000, 6000)] == [10, 10, 15, 40, 60, 100]
    assert not model.covers(6000)
    assert model.cost_ms(4000) == pytest.approx(60.0)
    assert model.cost_ms(500) < 10.0  # sixteen prompts share an iteration


def test_a_prefill_profile_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="no points"):
        prefill_model(PrefillProfile((), (), ()), None)


def test_an_engine_without_a_phase() -> None:
    assert engine(replace(PROFILE, decode=None)).decode is None
    assert engine(replace(PROFILE, prefill=None)).prefill is None


@pytest.mark.parametrize("truth", [0.7, 1.0, 1.6, 2.2])
def test_a_correction_finds_the_truth_and_fades_without_news(truth: float) -> None:
    factor = 1.0
    for _ in range(30):
        factor = observed_ratio.learned(factor, truth)
    assert factor == pytest.approx(truth, rel=0.02)
    for _ in range(500):
        factor = observed_ratio.learned(factor, None)
    assert factor == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("ratio", "interval_s"), [(1.6, 5.0), (1.6, 10.0), (None, 5.0), (0.7, 15.0)])
def test_a_correction_moves_as_far_in_the_same_time_however_often_it_is_taught(
    ratio: float | None, interval_s: float
) -> None:
    often, rarely = 1.3, observed_ratio.learned(1.3, ratio, 30.0)
    for _ in range(round(30.0 / interval_s)):
        often = observed_ratio.learned(often, ratio, interval_s)
    assert often == pytest.approx(rarely)


def test_a_correction_stays_in_its_bounds() -> None:
    rng = random.Random(1)
    factor = 1.0
    for _ in range(1000):
        factor = observed_ratio.learned(factor, rng.choice([None, 0.0, 1e-9, 1.0, 1e9]))
        assert observed_ratio.FASTEST <= factor <= observed_ratio.SLOWEST


@pytest.mark.parametrize("truth", [0.6, 1.0, 1.9])
def test_itl_teaches_the_factor_exactly(truth: float) -> None:
    """An engine ``truth`` times slower than its profile, at whatever batch the load makes."""
    assert PROFILE.decode is not None
    model = decode_model(PROFILE.decode, 1024, 1)
    context, steps_per_s = 3000.0, 6000.0 / truth
    step_ms = model.a_ms * truth
    for _ in range(200):  # a token shares its iteration with the sequences found at its arrival, and with its own
        step_ms = truth * model.itl_ms(steps_per_s * step_ms / 1000.0 + 1.0, context)
    assert observed_ratio.itl_ratio(model, step_ms, steps_per_s, context) == pytest.approx(truth, rel=1e-6)


def test_what_requests_see_of_a_batch_that_varies_is_not_taken_for_a_slow_engine() -> None:
    """Sequences come and go independently: their number is Poisson over time, and larger as the tokens see it."""
    assert PROFILE.decode is not None
    model, context, mean = decode_model(PROFILE.decode, 1024, 1), 3000.0, 30.0
    batches = np.random.default_rng(1).poisson(mean, 200_000)
    steps_ms = np.array([model.itl_ms(float(n), context) for n in range(batches.max() + 1)])[batches]
    # Each instant's batch advances by one token per sequence and iteration time.
    seen_ms = float(batches.sum() / (batches / steps_ms).sum())
    steps_per_s = 1000.0 * float((batches / steps_ms).mean())
    ratio = observed_ratio.itl_ratio(model, seen_ms, steps_per_s, context)
    assert ratio == pytest.approx(1.0, abs=0.01)


def test_itl_teaches_nothing_where_the_batch_hardly_lengthens_an_iteration() -> None:
    """A burst inside the interval looks like a slow engine there; where answers are late it must count all the same."""
    assert PROFILE.decode is not None
    model, context = decode_model(PROFILE.decode, 1024, 1), 3000.0
    step_ms, steps_per_s = 1.4 * model.itl_ms(7.0, context), 7000.0 / (1.4 * model.itl_ms(7.0, context))
    assert observed_ratio.itl_ratio(model, step_ms, steps_per_s, context) is None
    late = observed_ratio.itl_ratio(model, step_ms, steps_per_s, context, late=True)
    assert late == pytest.approx(1.35, abs=0.05)


def test_nothing_is_learned_where_waiting_or_a_full_batch_rules() -> None:
    assert PROFILE.decode is not None
    model = decode_model(PROFILE.decode, 64, 1)
    assert observed_ratio.itl_ratio(model, 8.0, 20_000.0, 1000.0) is None
    assert observed_ratio.ttft_ratio(900.0, own_ms=60.0, response_ms=300.0) is None
    assert observed_ratio.ttft_ratio(90.0, own_ms=60.0, response_ms=60.0) == 1.5
