"""Forecast models by name. ``+log1p`` and ``+day`` after a name wrap the model. Heavy models come from adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from planner.core.forecast.band import Band
from planner.core.forecast.blend import Blend
from planner.core.forecast.constant import Constant
from planner.core.forecast.ewma import Ewma
from planner.core.forecast.holt import Holt
from planner.core.forecast.kalman import Kalman
from planner.core.forecast.log1p import Log1p
from planner.core.forecast.seasonal import Seasonal
from planner.domain.predictor import PointModel, TakesLogarithms

_BUILT_IN: Mapping[str, PointModel] = {
    "blend": Blend(),
    "constant": Constant(),
    "ewma": Ewma(),
    "holt": Holt(),
    "kalman": Kalman(),
}
NAMES = tuple(_BUILT_IN)
WRAPPERS = ("log1p", "day")


def built_in() -> Mapping[str, PointModel]:
    """Fresh models of the core's own, by name."""
    return _BUILT_IN


def model(name: str, horizon_s: float, extra: Mapping[str, PointModel]) -> PointModel:
    """A fresh point model. Raises KeyError for an unknown name, listing the known ones."""
    base, *wrappers = name.split("+")
    found = extra.get(base) or _BUILT_IN.get(base)
    if found is None or any(wrapper not in WRAPPERS for wrapper in wrappers):
        known = ", ".join(sorted({*_BUILT_IN, *extra}))
        raise KeyError(f"no forecast model {name!r}; there are {known}, each with +log1p or +day")
    for wrapper in wrappers:
        if wrapper == "log1p":
            found = Log1p(found.on_logarithms() if isinstance(found, TakesLogarithms) else found)
        else:
            found = Seasonal(found, horizon_s)
    return found


def make(name: str, level: float, horizon_s: float, extra: Mapping[str, PointModel]) -> Band:
    """A fresh model in its band."""
    return Band(model=model(name, horizon_s, extra), level=level, horizon_s=horizon_s, miss_share=1.0 - level)


def kinds() -> Mapping[str, type[Any]]:
    """The types of which bands of built-in models consist, by name; used to read a recorded band back."""
    found: dict[str, type[Any]] = {}
    for name in _BUILT_IN:
        for wrapper in WRAPPERS:
            _collect(make(f"{name}+{wrapper}", 0.9, 60.0, {}), found)
    return found


def _collect(value: object, found: dict[str, type[Any]]) -> None:
    if isinstance(value, tuple):
        for part in value:
            _collect(part, found)
    elif is_dataclass(value) and not isinstance(value, type):
        found[type(value).__name__] = type(value)
        for field in fields(value):
            _collect(getattr(value, field.name), found)
