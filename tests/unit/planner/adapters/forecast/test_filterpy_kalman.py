"""The Kalman predictor by filterpy computes what the core's computes, and shares its records."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.adapters import checkpoint
from planner.core.forecast import registry
from planner.core.forecast.kalman import Kalman

pytest.importorskip("filterpy")

from planner.adapters.forecast.filterpy_kalman import FilterpyKalman

VALUES = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=60)
PARAMETERS = st.tuples(st.floats(0.01, 100.0), st.floats(0.001, 10.0), st.floats(0.1, 1000.0))


@given(VALUES, PARAMETERS)
def test_the_numbers_are_the_cores_to_1e_9(values: list[float], parameters: tuple[float, float, float]) -> None:
    ours: Kalman = Kalman(*parameters)
    theirs: Kalman = FilterpyKalman(*parameters)
    for index, y in enumerate(values):
        ours, theirs = ours.observe(60.0 * index, y), theirs.observe(60.0 * index, y)
        for horizon_s in (60.0, 300.0):
            assert math.isclose(ours.mean(horizon_s), theirs.mean(horizon_s), rel_tol=1e-9, abs_tol=1e-9 * 1e6)
        for one, other in zip((ours.level, ours.trend, *ours.p), (theirs.level, theirs.trend, *theirs.p), strict=True):
            assert math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9 * max(1.0, abs(y)))


@pytest.mark.parametrize("name", ["kalman", "kalman+log1p", "kalman+day"])
@pytest.mark.parametrize(("before", "after"), [(Kalman(), FilterpyKalman()), (FilterpyKalman(), Kalman())])
def test_a_record_of_one_is_read_back_by_the_other(name: str, before: Kalman, after: Kalman) -> None:
    band = registry.make(name, 0.9, 60.0, {"kalman": before})
    for index in range(12):
        band = band.observe(60.0 * index, 100.0 + 7.0 * index)
    kept = checkpoint.bands({"request_rate_per_s": band})
    assert kept is not None
    back = checkpoint.bands_back(kept, {"kalman": after})["request_rate_per_s"]
    assert back.model.mean(60.0) == pytest.approx(band.model.mean(60.0), rel=1e-9)
    assert back.observe(720.0, 200.0).model.mean(60.0) == pytest.approx(
        band.observe(720.0, 200.0).model.mean(60.0), rel=1e-9
    )
