"""What is wrong around a planner is named: second agents, floods, other budgets, silence."""

from __future__ import annotations

import logging

import pytest

from planner.ports import Standing
from planner.runtime.telemetry.bus_watch import QUIET_S, BusWatch
from planner.runtime.telemetry.liveness import Liveness


class WatchedBus:
    """A watch with a clock and a standing of its own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.standing = Standing()
        self.vitals = Liveness(standing=lambda: self.standing)
        self.watch = BusWatch(self.vitals, lambda: self.standing, {"row": 15_680.0}, lambda: self.now_s)

    def codes(self) -> list[tuple[str, str]]:
        return [(one.code.value, one.who) for one in self.watch.problems()]


def test_agents_that_alternate_are_two_and_one_that_restarts_is_one() -> None:
    scene = WatchedBus()
    for boot in ("a", "a", "b", "b", "c"):
        scene.watch.reported("node-1", boot)
        assert scene.codes() == []
    scene.watch.reported("node-1", "b")
    assert scene.codes() == [("second_agent", "node-1")]
    scene.now_s += QUIET_S + 1.0
    scene.watch.reported("node-1", "b")
    assert scene.codes() == [], "one of them was stopped"
    scene.watch.reported("node-1", "c")
    assert scene.codes() == [("second_agent", "node-1")]


def test_an_agent_without_a_boot_is_no_second_one() -> None:
    scene = WatchedBus()
    for boot in ("a", "", "a", ""):
        scene.watch.reported("node-1", boot)
    assert scene.codes() == []


def test_a_leader_that_receives_no_report_is_named_after_a_while() -> None:
    scene = WatchedBus()
    scene.vitals.leading(7, scene.now_s)
    scene.now_s = QUIET_S
    assert scene.codes() == []
    scene.now_s += 1.0
    (problem,) = scene.watch.problems()
    assert problem.text == "leading, and no node has reported for 61 s"
    scene.watch.reported("node-1", "a")
    assert scene.codes() == []
    scene.vitals.leading(None, scene.now_s)
    scene.now_s += 1000.0
    assert scene.codes() == [], "who does not lead needs no reports"


def test_another_budget_of_the_leader_is_named_with_both() -> None:
    scene = WatchedBus()
    scene.standing = Standing("two", leader_budgets_watts={"row": 22_000.0, "elsewhere": 1.0})
    (problem,) = scene.watch.problems()
    assert problem.text == "site row: 22,000 W in the settings of the leader two, 15,680 W in ours"
    scene.standing = Standing("two", leader_budgets_watts={"row": 15_680.0})
    assert scene.codes() == []


def test_what_bars_the_lead_and_who_floods_are_named() -> None:
    scene = WatchedBus()
    scene.standing = Standing(hindrance="a byte", flooding=("node-2",))
    assert scene.codes() == [("not_leading", ""), ("flooding", "node-2")]


def test_each_problem_is_logged_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scene = WatchedBus()
    scene.standing = Standing(flooding=("node-2",))
    for _ in range(3):
        scene.watch.log_changes()
    scene.standing = Standing()
    for _ in range(3):
        scene.watch.log_changes()
    words = [record.getMessage() for record in caplog.records]
    assert words == [
        "problem: node-2: floods the bus; most of its messages are left out",
        "no longer a problem: node-2: floods the bus; most of its messages are left out",
    ]
