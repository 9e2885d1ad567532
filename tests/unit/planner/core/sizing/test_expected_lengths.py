"""Until lengths were observed, sizing takes those that the operator expects; unset, it waits for them."""

from __future__ import annotations

from typing import Any

import pytest

from planner.core.intake import initial_state
from planner.core.step import step
from planner.domain.config import PlannerConfig
from planner.domain.observation import DeploymentObservation, Observation
from planner.domain.plan import DeploymentPlan
from planner.domain.reading import Sample
from planner.domain.reasons import ReasonCode
from tests.unit.planner.core.small_site import PREFILL, D, deployment


def first(seen: DeploymentObservation, **expected: Any) -> DeploymentPlan:
    config = PlannerConfig({D: deployment(**expected)}, interval_s=60.0)
    _, plan = step(initial_state(config, 1, 0.0, (), ()), Observation({D: seen}), config, config.clock(60.0))
    return plan.deployments[D]


@pytest.mark.parametrize("isl", [500.0, 8000.0])
def test_expected_lengths_size_until_lengths_were_seen(isl: float) -> None:
    counted = DeploymentObservation(60.0, requests=Sample(600.0))
    held = first(counted)
    assert held.pools[PREFILL].chain[0].reason is ReasonCode.METRICS_MISSING
    sized = first(counted, expected_isl_tokens=isl, expected_osl_tokens=150.0)
    assert sized.pools[PREFILL].chain[0].reason is not ReasonCode.METRICS_MISSING
    assert sized.forecasts["isl_tokens"].mean == isl


def test_lengths_that_were_seen_are_stronger_than_expected_ones() -> None:
    seen = DeploymentObservation(60.0, Sample(600.0), Sample(1000.0), Sample(100.0))
    sized = first(seen, expected_isl_tokens=9000.0, expected_osl_tokens=900.0)
    assert sized.forecasts["isl_tokens"].mean == pytest.approx(1000.0)
