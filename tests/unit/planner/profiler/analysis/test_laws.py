"""The fits find what times were made of, and take no term that the points do not show."""

from __future__ import annotations

import pytest

from planner.adapters.profiles import load_profile
from planner.domain.profile import DecodeProfile, PrefillProfile
from planner.profiler.analysis.laws import fit_decode, fit_prefill
from tests.shared_data import shared
from tests.unit.planner.profiler.rows import profiled


def test_lines_are_found_exactly() -> None:
    run = profiled()
    prefill, decode = fit_prefill(run.prefill()), fit_decode(run.decode())
    assert (prefill.base_ms, prefill.ms_per_token) == pytest.approx((20, 0.05))
    assert prefill.ms_per_token_squared == 0
    assert (decode.base_ms, decode.ms_per_request, decode.ms_per_kv_token) == pytest.approx((4, 0.1, 0.0001))


def test_attention_of_long_inputs_is_seen() -> None:
    isl = (100.0, 1000.0, 4000.0, 8000.0, 16000.0)
    ttft = tuple(10 + 0.04 * n + 2e-6 * n**2 for n in isl)
    assert fit_prefill(PrefillProfile(isl, ttft, ttft)).ms_per_token_squared == pytest.approx(2e-6, rel=1e-3)


def test_one_point_is_a_constant() -> None:
    fit = fit_decode(DecodeProfile((0.1,), (100.0,), (7.0,), (1.0,), 1000))
    assert fit.base_ms + fit.ms_per_request + fit.ms_per_kv_token * 100 == pytest.approx(7.0)


def test_a_published_profile_follows_the_lines() -> None:
    published = load_profile(shared("profiles/qwen3-32b_h200_vllm_tp1p_tp1d"))
    assert published.prefill is not None
    assert published.decode is not None
    assert fit_prefill(published.prefill).error < 0.05
    assert fit_decode(published.decode).error < 0.05
