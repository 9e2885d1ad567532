"""Forecast models beside the core's: a row makes one known, and a missing library is named."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from deploy.compose import predictors
from deploy.compose.core_config import planner_config
from deploy.compose.planner_settings import load
from deploy.compose.predictors import EXTRA_PREDICTORS, ExtraPredictor, predictor_notes
from deploy.compose.settings_layers import SettingsError
from planner.adapters import checkpoint
from planner.core.forecast import registry
from planner.core.forecast.kalman import Kalman
from planner.domain.ids import DeploymentId
from planner.runtime.config.settings import Settings
from tests.unit.deploy.compose.test_planner_settings import changed, file

__all__ = ["file"]
CHAT = DeploymentId("prod-chat")


@dataclass(frozen=True, slots=True)
class LargestSeen:
    """A toy from outside: the largest value there ever was. What ``planner/adapters/forecast/<name>.py`` would hold."""

    largest: float = 0.0
    points: int = 0

    @property
    def name(self) -> str:
        return "largest"

    @property
    def ready(self) -> bool:
        return self.points > 0

    def observe(self, t_s: float, y: float) -> LargestSeen:
        return LargestSeen(max(self.largest, y), self.points + 1)

    def mean(self, horizon_s: float) -> float:
        return self.largest


def predictor() -> LargestSeen:
    return LargestSeen()


def settings(path: Path, name: str) -> Settings:
    return load(changed(path, predictor=name), environ={}).settings


@pytest.mark.parametrize("name", ["largest", "largest+log1p", "largest+day"])
def test_a_new_predictor_is_a_module_and_a_row(file: Path, name: str) -> None:
    rows = {**EXTRA_PREDICTORS, "largest": ExtraPredictor(__name__, "forecast-largest")}
    config = planner_config(settings(file, name), extra_predictors=rows)
    assert config.deployments[CHAT].predictor == name
    band = registry.make(name, 0.9, 60.0, config.predictors)
    for index, y in enumerate((3.0, 9.0, 4.0)):
        band = band.observe(60.0 * index, y)
    if name == "largest":
        assert band.model.mean(60.0) == 9.0
    kept = checkpoint.bands({"request_rate_per_s": band})
    assert kept is not None
    assert checkpoint.bands_back(kept, config.predictors) == {"request_rate_per_s": band}


def test_a_name_without_a_row_is_refused_with_those_there_are(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"predictor: no forecast model 'largest'; there are .*kalman"):
        planner_config(settings(file, "largest"))


def test_a_row_whose_library_is_missing_names_the_extra(file: Path) -> None:
    rows = {"largest": ExtraPredictor("planner.adapters.forecast.absent", "forecast-largest")}
    with pytest.raises(SettingsError, match=r"pip install 'wattscale\[forecast-largest\]'"):
        planner_config(settings(file, "largest"), extra_predictors=rows)


def without(library: str) -> Callable[[str], Any]:
    real = importlib.util.find_spec
    return lambda name: None if name == library else real(name)


def test_kalman_without_filterpy_is_the_built_in_filter_and_is_noted(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictors, "find_spec", without("filterpy"))
    found = settings(file, "kalman")
    assert type(planner_config(found).predictors["kalman"]) is Kalman
    (note,) = predictor_notes(found)
    assert "forecast-kalman" in note
    assert predictor_notes(settings(file, "holt")) == []


def test_kalman_with_filterpy_is_the_library(file: Path) -> None:
    pytest.importorskip("filterpy")
    from planner.adapters.forecast.filterpy_kalman import FilterpyKalman

    found = load(changed(file, predictor="kalman+log1p"), environ={}, overrides=["kalman.r=3"]).settings
    model = planner_config(found).predictors["kalman"]
    assert isinstance(model, FilterpyKalman)
    assert replace(model, points=0) == FilterpyKalman(r=3.0)
    assert predictor_notes(found) == []
    assert type(planner_config(settings(file, "holt")).predictors["kalman"]) is Kalman
