"""What the log says about a site's watts, and how often."""

from __future__ import annotations

import logging

import pytest

from planner.core.intake import initial_state
from planner.domain.ids import SiteId
from planner.domain.observation import Observation
from planner.domain.plan import Plan, SitePlan
from planner.domain.units import Milliwatts
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.telemetry.decision_log import DecisionLog
from tests.unit.planner.core.small_site import planner

STATE = initial_state(planner(), 1, 0.0, (), ())


def decided(short_watts: int, *frozen: str, tick: bool) -> DecisionEvent:
    site = SitePlan(
        SiteId("row-1"),
        *(Milliwatts(1_000_000),) * 4,
        Milliwatts(0),
        shortfall_mw=Milliwatts(short_watts * 1000),
        frozen=frozen,
    )
    return DecisionEvent(Observation(), Plan(sites={site.site: site}), STATE, 0.0, tick=tick, epoch=1)


def test_a_shortfall_is_logged_once_per_interval_and_when_it_begins_changes_or_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = DecisionLog()
    with caplog.at_level(logging.INFO, "planner.decisions"):
        for event in (
            decided(0, tick=True),
            decided(100, tick=False),
            decided(90, tick=False),
            decided(80, tick=True),
            decided(80, "I3", tick=False),
            decided(80, "I3", tick=False),
            decided(0, tick=False),
            decided(0, tick=True),
        ):
            log.watch(event)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "site row-1: 100 W short of what is wanted"),
        ("WARNING", "site row-1: 80 W short of what is wanted"),
        ("WARNING", "site row-1: 80 W short of what is wanted; raises are frozen by I3"),
        ("INFO", "site row-1: not short of watts any more, and nothing is frozen"),
    ]
