"""Warm start from a recorded trace."""

from __future__ import annotations

import pytest

from planner.core.forecast import registry
from planner.core.forecast.band import Band
from planner.core.forecast.warm import warmed
from planner.core.intake import initial_state
from planner.core.sizing.load_forecast import QUANTITIES
from planner.core.step import step
from planner.domain.observation import Observation
from planner.domain.request import Request
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
