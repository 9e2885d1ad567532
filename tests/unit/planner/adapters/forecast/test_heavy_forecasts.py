"""ARIMA and Prophet behind the core's interface, where their libraries are installed."""

from __future__ import annotations

import math

import pytest

from planner.core.forecast import registry
from planner.domain.predictor import PointModel


def arima() -> PointModel:
    pytest.importorskip("pmdarima", reason="pmdarima is not installed (extra forecast-arima)")
    from planner.adapters.forecast.arima import predictor

    return predictor()


def prophet() -> PointModel:
    pytest.importorskip("prophet", reason="prophet is not installed (extra forecast-prophet)")
    from planner.adapters.forecast.prophet import predictor

    return predictor()


@pytest.mark.long
@pytest.mark.parametrize("make", [arima, prophet])
def test_a_heavy_model_follows_the_rules_of_every_model(make: object) -> None:
    model: PointModel = make()  # type: ignore[operator]
    assert not model.ready
    for i in range(4):
        model = model.observe(60.0 * i, 10.0 + i)
        assert model.mean(60.0) == 10.0 + i, "the last value until there are five"
    for i in range(4, 12):
        model = model.observe(60.0 * i, 10.0 + i)
    assert 10.0 <= model.mean(60.0) < 60.0
    one, other = model.observe(720.0, 5.0), model.observe(720.0, 50.0)
    assert one.mean(60.0) < other.mean(60.0), "a value may be observed twice"


@pytest.mark.long
@pytest.mark.parametrize("make", [arima, prophet])
def test_a_heavy_model_says_a_constant_load(make: object) -> None:
    model: PointModel = make()  # type: ignore[operator]
    for i in range(8):
        model = model.observe(60.0 * i, 7.0)
    assert model.mean(60.0) == pytest.approx(7.0, rel=0.05)


@pytest.mark.long
def test_arima_turns_to_logarithms_where_the_raw_fit_collapses() -> None:
    model = arima()
    for i, y in enumerate((1.0, 9.0, 2.0, 7.0, 5.0, 3.0, 8.0, 1.0)):
        model = model.observe(60.0 * i, y)
    assert model.mean(60.0) >= 0.0
    assert model.fitted is not None  # type: ignore[attr-defined]
    order = model.fitted.model.order  # type: ignore[attr-defined]
    assert model.fitted.logged or order[0] or order[2]  # type: ignore[attr-defined]


@pytest.mark.long
def test_arima_behind_log1p_takes_the_logarithm_once() -> None:
    """Its forecast is the fitted model's own, with one logarithm undone."""
    model = registry.model("arima+log1p", 60.0, {"arima": arima()})
    for i, y in enumerate((100.0, 900.0, 200.0, 700.0, 500.0, 300.0, 800.0, 100.0)):
        model = model.observe(60.0 * i, y)
    inner = model.model  # type: ignore[attr-defined]
    assert inner.fitted is not None
    assert not inner.fitted.logged
    raw = float(inner.fitted.model.predict(n_periods=1)[-1])
    assert model.mean(60.0) == pytest.approx(math.expm1(max(0.0, raw)))
