"""The prototype of a scenario tree: what it keeps, gives up, and takes for similar."""

from __future__ import annotations

from planner.core.limits import hpa_behavior
from tests.benchmarks.future.scenario_tree import SCENARIOS, USUAL, Tree, cheapest_count, deciding, similar


def test_a_replica_is_kept_where_its_load_is_back_within_a_start_and_its_absence_is_dear() -> None:
    assert cheapest_count([(4, 4, 4)] * 15, 2, 4, price=9.5) == 4
    assert cheapest_count([(2, 2, 2)] * 15, 2, 4, price=9.5) == 2
    assert cheapest_count([(2, 2, 4)] * 15, 2, 4, price=9.5) == 2, "there is time to start it again"
    assert cheapest_count([(4, 4, 4)] * 15, 2, 4, price=0.5) == 2, "cheaper missed than kept"
    assert cheapest_count([(2, 2, 2)] * 12 + [(4, 4, 4)] * 3, 2, 4, price=9.5) == 4, "one in five is worth it"


def test_what_followed_moments_like_this_one_is_found() -> None:
    past = tuple((30.0 * tick, 4 if tick % 20 < 4 else 2) for tick in range(200))
    found = similar(past, 2, 30.0, 60.0)
    assert len(found) == SCENARIOS
    assert found[0] == (2, 2, 2), "just after a burst"
    assert similar(past, 2, 16 * 30.0, 60.0)[0][0] == 4, "just before one"


def test_the_planners_own_rule_is_put_back() -> None:
    with deciding(Tree()):
        assert hpa_behavior.keep is not USUAL
    assert hpa_behavior.keep is USUAL
