"""The planner's metrics page, from decisions alone."""

from __future__ import annotations

from planner.core.state import PlannerState
from planner.domain.observation import Observation
from planner.domain.plan import Plan
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.telemetry.instruments import Instruments
from planner.runtime.telemetry.liveness import Liveness
from tests.unit.planner.core.small_site import planner


def test_iterations_are_counted_by_cause_under_the_former_name_too() -> None:
    instruments = Instruments(planner(), Liveness())
    try:
        for tick in (True, False, False):
            instruments.watch(DecisionEvent(Observation(), Plan(), PlannerState(1, 0.0), 10.0, tick, 1))
        page = instruments.page().decode()
    finally:
        instruments.close()
    for name in ("wattscale_planner_iterations_total", "wattscale_planner_looks_total"):
        assert f'{name}{{cause="tick"}} 1.0' in page
        assert f'{name}{{cause="event"}} 2.0' in page
