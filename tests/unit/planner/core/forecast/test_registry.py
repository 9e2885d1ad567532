"""Forecast models: what each promises, the band around them, and the name table."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.forecast import registry
from planner.core.forecast.band import Band
from planner.core.forecast.constant import Constant
from planner.core.forecast.ewma import Ewma
from planner.core.forecast.holt import Holt
from planner.core.forecast.kalman import Kalman
from planner.core.forecast.log1p import Log1p
from planner.core.forecast.seasonal import DAY_S, Seasonal
from planner.domain.predictor import PointModel

ALL = ("constant", "ewma", "holt", "kalman", "ewma+log1p", "holt+day", "kalman+log1p+day")


def fed(model: PointModel, course: Callable[[float], float], until_s: float, step_s: float = 30.0) -> PointModel:
    for i in range(1, int(until_s / step_s) + 1):
        model = model.observe(i * step_s, course(i * step_s))
    return model


@pytest.mark.parametrize("name", ALL)
def test_a_constant_load_is_forecast_as_it_is(name: str) -> None:
    model = fed(registry.model(name, 60.0, {}), lambda _: 7.0, 3000.0)
    assert model.mean(60.0) == pytest.approx(7.0, rel=1e-3)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=30, deadline=None)
@given(ys=st.lists(st.floats(0.0, 1e6), min_size=1, max_size=30))
def test_no_model_fails_or_goes_below_zero(name: str, ys: list[float]) -> None:
    model = registry.model(name, 60.0, {})
    assert not model.ready
    for i, y in enumerate(ys):
        model = model.observe(i * 30.0, y)
        assert model.ready
        for horizon_s in (0.0, 30.0, 600.0):
            assert 0.0 <= model.mean(horizon_s) < math.inf


def test_models_are_values() -> None:
    before = Ewma().observe(0.0, 1.0)
    before.observe(30.0, 100.0)
    assert before.mean(30.0) == 1.0


def test_ewma_counts_time_and_not_samples() -> None:
    often = fed(Ewma().observe(0.0, 0.0), lambda _: 10.0, 60.0, 1.0)
    seldom = Ewma().observe(0.0, 0.0).observe(60.0, 10.0)
    assert often.mean(0.0) == pytest.approx(seldom.mean(0.0), rel=1e-9)


def test_holt_follows_a_ramp_further_than_ewma_and_its_trend_fades() -> None:
    holt, ewma = (fed(model, lambda t: t / 30.0, 1500.0) for model in (Holt(), Ewma()))
    assert ewma.mean(60.0) < holt.mean(60.0)
    assert holt.mean(1e6) - holt.mean(1e5) < 1e-6


def test_kalman_is_filterpys_filter() -> None:
    filterpy = pytest.importorskip("filterpy.kalman")
    rng = random.Random(4)
    theirs = filterpy.KalmanFilter(dim_x=2, dim_z=1)
    theirs.F, theirs.H = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    theirs.P, theirs.Q, theirs.R = np.eye(2) * 1000.0, np.diag([1.0, 0.1]), np.array([[10.0]])
    ours = Kalman()
    for i in range(60):
        y = 100.0 + 3.0 * i + rng.gauss(0.0, 10.0)
        if i == 0:
            theirs.x = np.array([[y], [0.0]])
        else:
            theirs.predict()
            theirs.update(y)
        ours = ours.observe(60.0 * i, y)
        if i >= 4:
            ahead = float((theirs.F @ theirs.x)[0, 0])
            assert ours.mean(60.0) == pytest.approx(ahead, rel=1e-9)


def test_kalman_says_the_last_value_until_it_has_points_and_counts_steps_of_its_interval() -> None:
    model = fed(Kalman(), lambda t: t, 4 * 60.0, 60.0)
    assert model.mean(60.0) == 240.0
    model = model.observe(300.0, 300.0)
    assert model.mean(60.0) == pytest.approx(360.0, rel=0.05)
    assert model.mean(180.0) == pytest.approx(480.0, rel=0.05)


def test_log1p_survives_what_would_overflow() -> None:
    assert Log1p(Constant(1e6)).mean(0.0) < math.inf


def test_a_band_covers_what_it_promises() -> None:
    rng = random.Random(7)
    band = registry.make("ewma", 0.9, 60.0, {})
    above = judged = 0
    upper = math.inf
    for i in range(1, 2000):
        y = 50.0 * math.exp(rng.gauss(0.0, 0.3))
        if i > 200:
            above += y > upper
            judged += 1
        band = band.observe(30.0 * i, y)
        upper = band.forecast(60.0).upper
    assert above / judged == pytest.approx(0.1, abs=0.03)


def test_a_band_is_tight_on_a_constant_load_and_widens_when_habits_change() -> None:
    band = registry.make("ewma", 0.9, 60.0, {})
    for i in range(1, 60):
        band = band.observe(30.0 * i, 20.0)
    calm = band.forecast(60.0)
    assert calm.upper == pytest.approx(20.0)
    assert calm.lower == pytest.approx(20.0)
    for i in range(60, 90):
        band = band.observe(30.0 * i, 10.0 if i % 2 else 30.0)
    assert band.forecast(60.0).upper > 1.3 * band.forecast(60.0).mean


def test_a_band_is_judged_at_its_horizon_and_not_before() -> None:
    band = Band(Constant(), horizon_s=90.0).observe(0.0, 10.0).observe(30.0, 10.0)
    assert band.errors == ()
    assert len(band.observe(90.0, 12.0).errors) == 1


@pytest.mark.parametrize("tick_s", [5.0, 10.0, 15.0])
def test_short_ticks_are_judged_and_learned_as_the_spans_that_they_make_up(tick_s: float) -> None:
    """Whoever looks more often sees the same load: same errors, same model, as many errors kept for the same time."""
    rng = random.Random(11)
    spans = [50.0 * math.exp(rng.gauss(0.0, 0.2)) for _ in range(80)]
    whole, parts = (registry.make("blend", 0.9, 60.0, {}).over(30.0) for _ in range(2))
    ticks = round(30.0 / tick_s)
    for i, mean in enumerate(spans, start=1):
        whole = whole.observe(30.0 * i, mean)
        noise = [rng.gauss(0.0, 20.0) for _ in range(ticks)]
        for k in range(ticks if i > 1 else 1):
            y = mean if i == 1 else mean + noise[k] - sum(noise) / ticks
            parts = parts.observe(30.0 * (i - 1) + (tick_s * (k + 1) if i > 1 else 30.0), y)
    assert parts.errors == pytest.approx(whole.errors)
    assert parts.model.mean(60.0) == pytest.approx(whole.model.mean(60.0))
    assert parts.forecast(60.0).upper == pytest.approx(whole.forecast(60.0).upper)


def test_within_a_span_a_forecast_follows_a_jump_by_how_much_of_it_has_passed() -> None:
    band = Band(Constant(), horizon_s=60.0, span_s=30.0)
    for i in range(7):
        band = band.observe(10.0 * i, 10.0)
    means = []
    for i in range(7, 10):
        band = band.observe(10.0 * i, 40.0)
        means.append(band.mean(60.0))
    assert means == pytest.approx([10.0 + 10.0 / 3, 10.0 + 2 / 3 * 20.0, 40.0])
    assert band.model.mean(60.0) == 40.0
    assert band.errors[:-1] == (0.0,) * (len(band.errors) - 1), "one error a span, and the jump came in the last"


def test_ticks_that_are_late_or_further_apart_than_a_span_are_spans_of_their_own() -> None:
    band = Band(Constant(), horizon_s=60.0, span_s=30.0)
    for i in range(9):
        band = band.observe(29.2 * i, float(i))
        assert band.recent == ((29.2 * i, float(i)),)
        assert band.model.mean(60.0) == i


def test_an_error_of_a_jump_does_not_multiply_the_level_after_it() -> None:
    """50 comes after 30: the largest error is 20, so that 70 may come next, and not 50 * 50 / 30 = 83."""
    shares, amounts = Band(Constant(), horizon_s=30.0), Band(Constant(), horizon_s=30.0, relative=False)
    for i in range(10):
        y = 30.0 if i < 9 else 50.0
        shares, amounts = shares.observe(30.0 * i, y), amounts.observe(30.0 * i, y)
    assert amounts.forecast(30.0).upper == pytest.approx(70.0)
    assert shares.forecast(30.0).upper == pytest.approx(250.0 / 3.0)
    assert amounts.upper(30.0) < shares.upper(30.0)
    fallen = amounts.observe(300.0, 5.0)
    assert fallen.forecast(30.0).upper == pytest.approx(10.0), "at a low level, no more than double"
    assert min(fallen.scenarios(30.0)) == 0.0


def day(t_s: float) -> float:
    return 100.0 + 80.0 * math.sin(2.0 * math.pi * t_s / DAY_S)


def test_a_days_shape_earns_its_weight_on_a_load_that_has_one() -> None:
    model = fed(Seasonal(Ewma(), 3600.0), day, 2.9 * DAY_S, 300.0)
    assert isinstance(model, Seasonal)
    assert model.weight > 0.5
    t_s = 2.9 * DAY_S
    truth = day(t_s + 3600.0)
    assert abs(model.mean(3600.0) - truth) < 0.5 * abs(model.model.mean(3600.0) - truth)


def test_a_days_shape_stays_out_of_a_load_that_has_none() -> None:
    rng = random.Random(3)
    level = [100.0]

    def wander(_: float) -> float:
        level[0] = max(1.0, level[0] * math.exp(rng.gauss(0.0, 0.05)))
        return level[0]

    model = fed(Seasonal(Ewma(), 3600.0), wander, 4 * DAY_S, 300.0)
    assert isinstance(model, Seasonal)
    assert model.weight < 0.2


def test_names() -> None:
    assert registry.model("holt+log1p", 60.0, {}).name == "holt+log1p"
    assert registry.model("mine", 60.0, {"mine": Constant()}).name == "constant"
    with pytest.raises(KeyError, match="no forecast model 'oracle'; there are blend, constant, ewma, holt, kalman"):
        registry.model("oracle", 60.0, {})
    with pytest.raises(KeyError, match=r"ewma\+week"):
        registry.model("ewma+week", 60.0, {})
