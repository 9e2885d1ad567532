"""Which model a name stands for. Heavy models come from outside, in ``extra``."""

from __future__ import annotations

from collections.abc import Mapping

from planner.core.forecast.band import Band
from planner.core.forecast.constant import Constant
from planner.core.forecast.ewma import Ewma
from planner.domain.predictor import PointModel

_BUILT_IN: Mapping[str, PointModel] = {"constant": Constant(), "ewma": Ewma()}
NAMES = tuple(_BUILT_IN)


def make(name: str, level: float, horizon_s: float, extra: Mapping[str, PointModel]) -> Band:
    """A fresh model in its band. Raises KeyError, naming the models there are, for an unknown name."""
    model = extra.get(name) or _BUILT_IN.get(name)
    if model is None:
        raise KeyError(f"no forecast model {name!r}; there are {', '.join(sorted({*_BUILT_IN, *extra}))}")
    return Band(model=model, level=level, horizon_s=horizon_s, miss_share=1.0 - level)
