"""The spread of prompt lengths is that of a whole span, however many ticks it has."""

from __future__ import annotations

import pytest

from planner.core.forecast.band import Band
from planner.core.sizing.load_forecast import learn
from planner.domain.observation import DeploymentObservation
from planner.domain.reading import NO_DATA, Reading, Sample
from tests.unit.planner.core.small_site import deployment, planner


def seen(isl: float, cv2: Reading, interval_s: float) -> DeploymentObservation:
    return DeploymentObservation(
        interval_s, requests=Sample(30.0), isl_tokens=Sample(isl), osl_tokens=Sample(100.0), isl_cv2=cv2
    )


def test_short_and_long_prompts_in_turn_are_spread_although_each_tick_has_one_length() -> None:
    """Start-up 60 s: a span is 30 s. Lengths 1000 and 3000 have the mean 2000 and the spread 0.25."""
    one = deployment()
    bands: dict[str, Band] = {}
    for i in range(1, 13):
        found = learn(planner(one), one, bands, seen(1000.0 if i % 2 else 3000.0, Sample(0.0), 15.0), 15.0 * i)
        bands = dict(found.bands)
    assert found.isl_cv2 == pytest.approx(0.25)


def test_a_tick_as_long_as_a_span_has_its_own_spread_and_a_missing_one_is_taken_as_1() -> None:
    one = deployment()
    found = learn(planner(one), one, {}, seen(1000.0, Sample(0.7), 30.0), 30.0)
    assert found.isl_cv2 == pytest.approx(0.7)
    found = learn(planner(one), one, found.bands, seen(4000.0, Sample(2.5), 30.0), 60.0)
    assert found.isl_cv2 == pytest.approx(2.5)
    assert learn(planner(one), one, found.bands, seen(4000.0, NO_DATA, 30.0), 90.0).isl_cv2 == 1.0
