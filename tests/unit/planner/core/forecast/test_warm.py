"""Warm start from a recorded trace."""

from __future__ import annotations

import pytest

from planner.core.forecast import registry
from planner.core.forecast.band import Band
from planner.core.forecast.seasonal import Seasonal
from planner.core.forecast.warm import reminded, warmed
from planner.core.intake import initial_state
from planner.core.sizing.load_forecast import QUANTITIES
from planner.core.step import step
from planner.domain.observation import Observation
from planner.domain.request import ObservedLoad, Request
from tests.unit.planner.core.small_site import D, deployment, planner, traffic


def bands() -> dict[str, Band]:
    return {name: registry.make("constant", 0.9, 60.0, {}) for name in QUANTITIES}


def test_a_trace_teaches_rate_and_lengths_up_to_now() -> None:
    arrivals = [Request(float(second), 100 * (1 + second // 60), 50) for second in range(180)]
    known = warmed(bands(), arrivals, 60.0, 1000.0)
    assert known["request_rate_per_s"].forecast(60.0).mean == 1.0
    assert known["isl_tokens"].forecast(60.0).mean == 200.0, "the last, unfinished minute is left out"
    assert known["osl_tokens"].forecast(60.0).mean == 50.0
    assert len(known["request_rate_per_s"].observe(1060.0, 1.0).errors) == 2


def test_quiet_minutes_teach_no_lengths() -> None:
    known = warmed(bands(), [Request(0.0, 300, 20), Request(200.0, 1, 1)], 60.0, 0.0)
    assert known["request_rate_per_s"].forecast(60.0).mean == 0.0
    assert known["isl_tokens"].forecast(60.0).mean == 300.0


def test_no_trace_teaches_nothing() -> None:
    assert not warmed(bands(), [], 60.0, 0.0)["request_rate_per_s"].ready


def test_a_planner_starts_with_what_its_trace_taught() -> None:
    arrivals = tuple(Request(second / 10.0, 3000, 150) for second in range(6010))
    cold, warm = deployment(), deployment(history=arrivals)
    state = initial_state(planner(warm), 1, 0.0, (), ())
    assert state.deployments[D].learned.forecasts["request_rate_per_s"].forecast(90.0).mean == pytest.approx(10.0)
    assert len(state.deployments[D].learned.forecasts["request_rate_per_s"].errors) > 10
    assert initial_state(planner(cold), 1, 0.0, (), ()).deployments[D].learned.forecasts == {}
    _, plan = step(state, Observation({D: traffic(10.0)}), planner(warm), planner(warm).clock(0.0))
    assert plan.deployments[D].forecasts["isl_tokens"].mean == pytest.approx(3000.0)


def test_past_days_teach_each_interval_at_its_own_time() -> None:
    past = [ObservedLoad(60.0 * minute, 60.0, 120.0, 100.0, None) for minute in range(1, 11)]
    known = reminded(bands(), past, 1.0, 480.0)
    assert known["request_rate_per_s"].forecast(60.0).mean == 2.0
    assert known["isl_tokens"].forecast(60.0).mean == 100.0
    assert not known["osl_tokens"].ready
    assert len(known["request_rate_per_s"].errors) == 7, "what comes after now is not known yet"


def test_a_forecast_is_not_compared_across_a_gap_or_twice() -> None:
    past = [ObservedLoad(60.0 * minute, 60.0, 60.0) for minute in (1, 2, 3)]
    doubled = [*past, past[-1]._replace(end_s=181.0)]
    assert len(reminded(bands(), doubled, 1.0, 1e4)["request_rate_per_s"].errors) == 2
    later = [*past, ObservedLoad(36_000.0, 60.0, 6000.0)]
    known = reminded(bands(), later, 1.0, 36_000.0)["request_rate_per_s"]
    assert known.errors == (0.0, 0.0)
    assert known.observe(80_000.0, 3.0).errors == (0.0, 0.0), "nor with the first interval that is seen live"


def test_a_planner_starts_with_its_past_days() -> None:
    past = tuple(
        ObservedLoad(900.0 * quarter - 30.0, 900.0, 900.0 * (1.0 + quarter % 96), 3000.0, 150.0)
        for quarter in range(-192, 40)
    )
    config = planner(deployment(past_load=past, predictor="blend+day"))
    model = initial_state(config, 1, 40_000.0, (), ()).deployments[D].learned.forecasts["request_rate_per_s"].model
    assert isinstance(model, Seasonal)
    assert all(level is not None for level in model.shape)
    assert model.ratio(3 * 3600.0) > 1.2, "a load that rises with the day"
