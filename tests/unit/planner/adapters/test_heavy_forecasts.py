"""ARIMA and Prophet behind the one interface, where their packages are installed."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest

from planner.domain.predictor import PointModel


def fresh(name: str, package: str) -> PointModel:
    pytest.importorskip(package, reason=f"{package} is an extra of the planner")
    made: PointModel = importlib.import_module(f"planner.adapters.forecast.{name}").predictor()
    return made


@pytest.mark.parametrize(("name", "package"), [("arima", "pmdarima"), ("prophet", "prophet")])
def test_they_are_point_models(name: str, package: str) -> None:
    model = fresh(name, package)
    assert isinstance(model, PointModel)
    assert model.name == name
    assert not model.ready
    for step in range(4):
        model = model.observe(30.0 * step, 5.0 + step)
    assert model.mean(30.0) == 8.0, "the last value until there is enough to fit"
    for step in range(4, 30):
        model = model.observe(30.0 * step, 5.0 + step)
    assert model.mean(30.0) == pytest.approx(35.0, rel=0.1), "a straight line goes on"
    before = model.mean(30.0)
    model.observe(1000.0, 0.0)
    assert model.mean(30.0) == pytest.approx(before), "observing does not change the old value"


@pytest.mark.parametrize(("name", "package"), [("arima", "pmdarima"), ("prophet", "prophet")])
def test_flat_and_odd_histories_never_raise(name: str, package: str) -> None:
    for history in ([3.0] * 20, [0.0] * 20, [0.0, 1e9] * 10):
        model: Any = fresh(name, package)
        for step, value in enumerate(history):
            model = model.observe(30.0 * step, value)
        found = model.mean(60.0)
        assert math.isfinite(found)
        assert found >= 0
