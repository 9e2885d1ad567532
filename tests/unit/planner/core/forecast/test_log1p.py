"""log1p around a model that may take logarithms by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest

from planner.core.forecast import registry
from planner.core.forecast.log1p import Log1p


@dataclass(frozen=True, slots=True)
class OwnLogs:
    """A model that turns to logarithms by itself, as ARIMA does, and says whether it may."""

    may: bool = True
    last: float = 0.0
    name: str = "own"
    ready: bool = True

    def on_logarithms(self) -> OwnLogs:
        return replace(self, may=False)

    def observe(self, t_s: float, y: float) -> OwnLogs:
        return replace(self, last=y)

    def mean(self, horizon_s: float) -> float:
        return self.last


def test_a_model_with_logarithms_of_its_own_takes_none_behind_log1p() -> None:
    wrapped = registry.model("own+log1p", 60.0, {"own": OwnLogs()}).observe(0.0, 99.0)
    assert isinstance(wrapped, Log1p)
    assert wrapped.model == OwnLogs(may=False, last=math.log1p(99.0))
    assert wrapped.mean(60.0) == pytest.approx(99.0)
    assert registry.model("own", 60.0, {"own": OwnLogs()}) == OwnLogs(may=True)
