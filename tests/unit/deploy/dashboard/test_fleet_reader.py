"""How often a node of a fleet is read: as often as the page is updated, or within a bounded turn."""

from __future__ import annotations

from deploy.dashboard.fleet_reader import LONGEST_TURN_S, NODES_PER_S, turn_s
from deploy.views.freshness import NODE_TERM_S


def test_a_turn_grows_with_the_fleet_and_ends_before_a_node_counts_as_silent() -> None:
    assert turn_s(0) == 0.0
    assert turn_s(NODES_PER_S) == 1.0
    assert turn_s(5 * NODES_PER_S) == 5.0
    assert turn_s(100 * NODES_PER_S) == LONGEST_TURN_S < NODE_TERM_S - 3.0
