"""Restarts of a graph: what is written, when, and what is reported, also after a crash at any moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.core.scaling.kubernetes.graph_restart import (
    ONE_AT_A_TIME,
    TOOK_ITS_PLACE,
    GraphRestart,
    RestartCommand,
    RestartPhase,
    RestartReport,
    graph_restart,
    next_restart,
)

COMMAND = RestartCommand("r1")
GRAPH = GraphRestart("7", ("Prefill", "Decode"))
ASKED = replace(GRAPH, asked_id="r1")


def status(phase: str, observed: str = "r1", *busy: str) -> dict[str, Any]:
    return {"observedID": observed, "phase": phase, "inProgress": list(busy)}


@pytest.mark.parametrize(
    ("command", "budgeted", "kind", "reason"),
    [
        (COMMAND, False, "Sequential", ""),
        (COMMAND, True, "Sequential", ""),
        (replace(COMMAND, parallel=True), False, "Parallel", ""),
        (replace(COMMAND, parallel=True), True, "Sequential", ONE_AT_A_TIME),
    ],
)
def test_with_a_power_budget_one_component_starts_at_a_time(
    command: RestartCommand, budgeted: bool, kind: str, reason: str
) -> None:
    written, report = next_restart(command, GRAPH, None, budgeted=budgeted)
    assert written == {"id": "r1", "strategy": {"type": kind, "order": None}}
    assert report == RestartReport("r1", RestartPhase.ASKED, (), reason)


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("Pending", RestartPhase.ASKED),
        ("Restarting", RestartPhase.RESTARTING),
        ("Completed", RestartPhase.COMPLETED),
        ("Failed", RestartPhase.FAILED),
        ("Superseded", RestartPhase.SUPERSEDED),
    ],
)
def test_what_its_operator_shows_is_reported_and_nothing_is_written_twice(phase: str, expected: RestartPhase) -> None:
    graph = replace(ASKED, status=status(phase, "r1", "Decode"))
    written, report = next_restart(COMMAND, graph, None, budgeted=False)
    assert (written, report.phase) == (None, expected)
    assert report.in_progress == (("Decode",) if expected is RestartPhase.RESTARTING else ())
    assert next_restart(COMMAND, ASKED, report, budgeted=False)[0] is None


def test_an_order_names_all_components_and_is_sequential() -> None:
    for command, words in (
        (replace(COMMAND, order=("Decode",)), "the order must name every component once: Prefill, Decode"),
        (replace(COMMAND, order=("Decode", "Prefill"), parallel=True), "an order is only for a sequential restart"),
    ):
        written, report = next_restart(command, GRAPH, None, budgeted=False)
        assert (written, report.phase, report.reason) == (None, RestartPhase.REJECTED, words)
    written, _ = next_restart(replace(COMMAND, order=("Decode", "Prefill")), GRAPH, None, budgeted=False)
    assert written is not None
    assert written["strategy"]["order"] == ["Decode", "Prefill"]


def test_what_is_in_progress_there_is_waited_for() -> None:
    for graph, words in (
        (replace(GRAPH, rolling="InProgress"), "a rolling update is InProgress"),
        (replace(GRAPH, asked_id="r0", status=status("Restarting", "r0")), "restart r0 is Restarting"),
    ):
        assert next_restart(COMMAND, graph, None, budgeted=False) == (
            None,
            RestartReport("r1", RestartPhase.WAITING, (), words),
        )
    done = replace(GRAPH, asked_id="r0", rolling="Completed", status=status("Completed", "r0"))
    assert next_restart(COMMAND, done, None, budgeted=False)[0] is not None


def test_another_writers_restart_takes_the_place_of_ours() -> None:
    asked = RestartReport("r1", RestartPhase.ASKED)
    written, report = next_restart(COMMAND, replace(GRAPH, asked_id="mine"), asked, budgeted=False)
    assert (written, report.phase) == (None, RestartPhase.SUPERSEDED)
    assert report.phase.final
    # A report of an earlier restart does not count.
    assert next_restart(RestartCommand("r2"), replace(GRAPH, asked_id="r1"), asked, budgeted=False)[0] is not None


def test_both_versions_of_a_graph_are_read() -> None:
    listed = {"components": [{"name": "Prefill"}, {"name": "Decode"}], "restart": {"id": "r1"}}
    state = {"restart": status("Completed"), "rollingUpdate": {"phase": "Failed"}}
    found = graph_restart({"metadata": {"resourceVersion": "7"}, "spec": listed, "status": state})
    assert found == replace(ASKED, status=status("Completed"), rolling="Failed")
    mapped = {"metadata": {"resourceVersion": "7"}, "spec": {"services": {"Prefill": {}, "Decode": None}}}
    assert graph_restart(mapped) == GRAPH


def test_a_restart_whose_command_is_gone_is_followed_but_never_begun() -> None:
    gone = replace(COMMAND, known=False)
    found = next_restart(gone, replace(ASKED, status=status("Completed")), None, budgeted=False)
    assert found == (None, RestartReport("r1", RestartPhase.COMPLETED))
    waiting = RestartReport("r1", RestartPhase.WAITING, (), "a rolling update is InProgress")
    found = next_restart(gone, GRAPH, waiting, budgeted=False)
    assert found == (None, RestartReport("r1", RestartPhase.SUPERSEDED, (), TOOK_ITS_PLACE))
