"""The law, its inverse, the draw, the priors and the calibration report."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.adapters.power_priors import MIN_USEFUL_OF_TDP, Phase, curve, gpu, phase_of
from planner.core.power.curve import cap_for_speed, draw_mw, fitted_speed, speed, tail_end_mw
from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from tests.curve_errors import Measurement, calibrate

TYPES = ("a100", "h100", "h200", "b200", "b300")
laws = st.builds(curve, st.sampled_from(TYPES).map(gpu), st.sampled_from(list(Phase)))


@given(laws, st.floats(0.0, 1.0))
def test_the_inverse_is_the_least_useful_cap_that_reaches_the_speed(law: PowerCurve, wanted: float) -> None:
    cap = cap_for_speed(law, wanted)
    assert law.useful_mw <= cap <= law.max_mw
    assert speed(law, cap) >= wanted - 1e-9
    assert cap == law.useful_mw or speed(law, cap - 1) < wanted + 1e-9
    assert cap >= tail_end_mw(law), "the tail recommends no cap"


@given(laws, st.integers(0, 1_200_000), st.integers(0, 1_200_000))
def test_speed_never_falls_with_the_cap(law: PowerCurve, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 0.0 <= speed(law, low) <= speed(law, high) <= 1.0


def test_no_cap_reaches_more_than_full_speed() -> None:
    law = curve(gpu("h100"), Phase.PREFILL)
    assert cap_for_speed(law, 5.0) == cap_for_speed(law, 1.0) == law.p_u_mw
    assert speed(law, law.max_mw) == 1.0
    assert fitted_speed(law, law.p_s_mw) == 0.0


@given(laws, st.integers(0, 999_999))
def test_the_tail_joins_the_law_without_a_step(law: PowerCurve, place: int) -> None:
    end = tail_end_mw(law)
    if not end:
        assert law.min_mw > law.p_s_mw
        return
    assert law.p_s_mw < end < law.p_u_mw
    assert speed(law, end - 1) == pytest.approx(speed(law, end), abs=1e-4)
    assert speed(law, law.p_s_mw - 1) == pytest.approx(speed(law, law.p_s_mw), abs=1e-4)
    cap = law.min_mw + place * (end - law.min_mw) // 1_000_000
    assert speed(law, cap) >= fitted_speed(law, cap) - 1e-9
    assert 0.0 <= speed(law, cap + 1) - speed(law, cap) < 1e-4


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("phase", list(Phase))
def test_no_card_stands_still_at_its_lowest_limit(name: str, phase: Phase) -> None:
    law = curve(gpu(name), phase)
    assert 0.05 <= speed(law, law.min_mw) <= 0.40
    assert speed(law, law.min_mw - 50_000) <= speed(law, law.min_mw)


def test_the_guides_caps_run_at_a_part_of_full_speed_on_an_h100() -> None:
    assert speed(curve(gpu("h100"), Phase.DECODE_DENSE), 250_000) == pytest.approx(0.42, abs=0.03)
    assert speed(curve(gpu("h100"), Phase.PREFILL), 250_000) == pytest.approx(0.42, abs=0.03)


@given(laws, st.integers(0, 1_200_000), st.floats(0.0, 1.0))
def test_draw_is_between_idle_and_what_the_phase_uses(law: PowerCurve, cap: int, busy: float) -> None:
    draw = draw_mw(law, cap, busy)
    assert law.idle_mw <= draw <= max(law.idle_mw, min(cap, law.p_u_mw))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("phase", list(Phase))
def test_every_prior_is_a_lawful_curve(name: str, phase: Phase) -> None:
    sheet = gpu(name.upper())
    law = curve(sheet, phase)
    assert law.idle_mw < law.useful_mw
    assert law.p_s_mw < law.useful_mw < law.p_u_mw <= law.max_mw == sheet.tdp_watts * 1000
    assert law.useful_mw == MIN_USEFUL_OF_TDP * law.max_mw
    assert 0 < law.alpha < 1


def test_an_unknown_gpu_is_named_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"gtx.*h100"):
        gpu("gtx")


def test_roles_have_their_phase() -> None:
    assert phase_of(Role.PREFILL) is Phase.PREFILL
    assert phase_of(Role.DECODE) is Phase.DECODE_DENSE
    assert phase_of(Role.DECODE, moe=True) is Phase.DECODE_MOE


def test_calibration_says_how_far_off_and_in_which_direction() -> None:
    law = curve(gpu("h100"), Phase.PREFILL)
    points = [
        Measurement("h100", 700.0, Phase.PREFILL, cap, speed(law, round(cap * 1000)) - error, cap / 1.1)
        for cap, error in ((400.0, 0.02), (500.0, 0.04))
    ]
    (fit,) = calibrate(points)
    assert (fit.gpu_type, fit.points) == ("h100", 2)
    assert fit.speed_bias == pytest.approx(0.03)
    assert fit.speed_worst == pytest.approx(0.04)
    assert fit.draw_bias == pytest.approx(0.1, abs=1e-3)
    (unknown,) = calibrate([Measurement("x", 300.0, Phase.PREFILL, 200.0)])
    assert unknown.speed_error is None
    assert unknown.draw_error is None
