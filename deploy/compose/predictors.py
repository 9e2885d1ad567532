"""Forecast models that need a library beside the core's own. ``EXTRA_PREDICTORS`` is the list: a new one is a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec

from planner.core.forecast.kalman import Kalman
from planner.domain.predictor import PointModel
from planner.runtime.config.settings import DeploymentSettings, KalmanSettings, Settings

KALMAN, PROPHET = "kalman", "prophet"
KALMAN_LIBRARY, KALMAN_EXTRA = "filterpy", "forecast-kalman"


@dataclass(frozen=True, slots=True)
class ExtraPredictor:
    """``module`` has a function ``predictor()`` that returns a fresh model; ``extra`` installs its library."""

    module: str
    extra: str


ExtraPredictors = Mapping[str, ExtraPredictor]
EXTRA_PREDICTORS: ExtraPredictors = {
    "arima": ExtraPredictor("planner.adapters.forecast.arima", "forecast-arima"),
    "prophet": ExtraPredictor("planner.adapters.forecast.prophet", "forecast-prophet"),
}


def predictors(settings: Settings, problems: list[str], extra: ExtraPredictors) -> Mapping[str, PointModel]:
    """Models by name that the core is given. A library that is missing is a line in ``problems``.

    A library is imported only where a deployment names its model: they take seconds and hundreds of megabytes.
    """
    named = _named(settings)
    found: dict[str, PointModel] = {KALMAN: kalman(settings.kalman, library=KALMAN in named and _has_filterpy())}
    for name in sorted(named & extra.keys()):
        try:
            found[name] = import_module(extra[name].module).predictor()
            if name == PROPHET:
                found[name] = replace(found[name], window=settings.prophet.window)  # type: ignore[type-var]
        except ImportError as error:
            problems.append(f"predictor {name}: {error}; pip install 'wattscale[{extra[name].extra}]'")
    return found


def kalman(block: KalmanSettings, *, library: bool) -> PointModel:
    """The Kalman filter: filterpy's (``library``), or the core's, which computes the same."""
    if not library:
        return Kalman(block.q_level, block.q_trend, block.r, block.min_points)
    from planner.adapters.forecast.filterpy_kalman import FilterpyKalman

    return FilterpyKalman(block.q_level, block.q_trend, block.r, block.min_points)


def predictor_notes(settings: Settings) -> list[str]:
    """What an operator should know about the chosen models; one line each."""
    if KALMAN not in _named(settings):
        return []
    notes = [_classic_note(name) for name, block in settings.deployments.items() if _classic_kalman(block)]
    if not _has_filterpy():
        without = f"{KALMAN_LIBRARY} is not installed; the built-in filter computes the same numbers"
        notes.append(f"predictor {KALMAN}: {without} (pip install 'wattscale[{KALMAN_EXTRA}]' for the library)")
    return notes


def _classic_kalman(block: DeploymentSettings) -> bool:
    return block.sizing == "classic" and block.predictor.split("+")[0] == KALMAN


def _classic_note(name: str) -> str:
    arima = (
        ""
        if find_spec("pmdarima")
        else "; 0.9.1's default is arima, which needs pip install 'wattscale[forecast-arima]'"
    )
    first = "forecasts from the first point on, as in 0.9.1, whatever kalman.min_points says"
    return f"deployments.{name}.predictor: with sizing classic the Kalman filter {first}{arima}"


def _named(settings: Settings) -> set[str]:
    return {block.predictor.split("+")[0] for block in settings.deployments.values()}


def _has_filterpy() -> bool:
    return find_spec(KALMAN_LIBRARY) is not None
