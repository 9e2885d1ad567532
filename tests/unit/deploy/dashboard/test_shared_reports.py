"""Which reports a planner's page takes of those that the planner receives."""

from __future__ import annotations

from collections import Counter

import pytest

from bus_schemas import v1
from deploy.dashboard.fleet_reader import NODES_PER_S, turn_s
from deploy.dashboard.shared_reports import SharedReports
from tests.doubles.seen_site import gpu, report


def reported(node: str, watts: float) -> v1.NodeTelemetry:
    return report(node, gpu(node, 0, draw_watts=watts))


async def test_a_few_nodes_are_shown_at_each_step_by_their_newest_report() -> None:
    taken: list[v1.Message] = []
    shared = SharedReports(taken.append, 1.0)
    for second in range(3):
        newest = []
        for node in ("a", "b"):
            shared.note(reported(node, second), 1)
            newest.append(reported(node, second + 0.5))
            shared.note(newest[-1], 2)
        await shared.drain()
        assert taken[-2:] == newest
    assert len(taken) == 6


@pytest.mark.parametrize("nodes", [130, 400, 1500])
async def test_of_many_nodes_each_is_shown_once_a_turn_and_as_many_in_each_step(nodes: int) -> None:
    taken: list[str] = []

    def take(message: v1.Message) -> None:
        assert isinstance(message, v1.NodeTelemetry)
        taken.append(message.node)

    shared = SharedReports(take, 1.0)
    every = [reported(f"node-{index}", 300.0) for index in range(nodes)]
    turn = round(turn_s(nodes))
    for _ in range(2):  # Every node at once, because none was shown yet, and then each sooner or later in a turn.
        for _ in range(turn):
            for one in every:
                shared.note(one, 1)
            await shared.drain()
    for _ in range(3):
        taken.clear()
        for step in range(1, turn + 1):
            for one in every:
                shared.note(one, 1)
            await shared.drain()
            assert abs(len(taken) - step * nodes / turn) <= step
        assert Counter(taken) == Counter(one.node for one in every)
        assert max(Counter(taken).values()) == 1
    assert nodes / turn <= max(NODES_PER_S * 1.5, nodes / 10)


async def test_a_node_that_reports_seldom_is_shown_by_each_report() -> None:
    taken: list[v1.Message] = []
    shared = SharedReports(taken.append, 1.0)
    for index in range(1500):
        shared.note(reported(f"node-{index}", 300.0), 1)
    for _ in range(11):
        await shared.drain()
    taken.clear()
    seldom = [reported("node-7", watts) for watts in (1.0, 2.0, 3.0)]
    for one in seldom:
        shared.note(one, 1)
        for _ in range(10):
            await shared.drain()
    assert taken == seldom
