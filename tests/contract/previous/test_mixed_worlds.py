"""A rolling upgrade, in either order and with a rollback in the middle, under the proof's faults: no milliwatt over."""

from __future__ import annotations

from collections import Counter

import pytest

from planner.domain.config import Covers
from tests.contract.previous.mixed_world import upgraded

ORDERS = {
    "agents-first": ("agents", "planners"),
    "planners-first": ("planners", "agents"),
    "rolled-back-from-agents": ("agents", "agents back", "agents", "planners"),
    "rolled-back-from-planners": ("planners", "agents", "planners back", "agents back"),
}
"""A planner of the previous release knows budgets over all GPUs only. So where a budget covers workers only, planners
are of today, and agents come after them."""


def held(seed: str, order: tuple[str, ...], covers: Covers) -> Counter[str]:
    outcome = upgraded(seed, order, covers, planners_previous=covers is Covers.ALL_GPUS)
    assert outcome.failure is None, f"seed {seed}: {outcome.failure}\n" + "\n".join(outcome.trace[-40:])
    assert outcome.steps_left == 0
    return Counter(outcome.counts)


@pytest.mark.parametrize("order", ORDERS)
def test_a_budget_over_all_gpus_holds_through_it(order: str) -> None:
    counts = held(f"20261126.{len(order)}", ORDERS[order], Covers.ALL_GPUS)
    assert counts["decision of before"], "the previous planner led, and decided"
    assert counts["planner of today started"]
    assert counts["agent of before started"]
    assert counts["agent of today started"]
    assert counts["calm weather judged"], "and in calm weather afterwards every wish that fits is in force"


@pytest.mark.parametrize("order", [("agents",), ("agents", "agents back")], ids=["upgrade", "rollback"])
def test_a_budget_over_workers_holds_while_agents_change(order: tuple[str, ...]) -> None:
    counts = held(f"20261127.{len(order)}", order, Covers.WORKERS)
    assert counts["agent of before started"]
    assert counts["agent of today started"]
    assert counts["scaling decision"]


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("order", ORDERS)
def test_it_holds_over_a_hundred_worlds(order: str) -> None:
    counts: Counter[str] = Counter()
    for number in range(100):
        counts += held(f"5.{number}", ORDERS[order], Covers.ALL_GPUS)
        agents_only = tuple(step for step in ORDERS[order] if step.startswith("agents"))
        counts += held(f"6.{number}", agents_only, Covers.WORKERS)
    for fault in ("budget cut", "agent crash", "planner crash", "bus put back", "partition longer than the lease"):
        assert counts[fault], fault


@pytest.mark.long
def test_an_agent_of_before_that_broke_the_promise_would_be_seen() -> None:
    for number in range(40):
        outcome = upgraded(f"7.{number}", ORDERS["planners-first"], Covers.ALL_GPUS, "default-on-expiry")
        if outcome.failure is not None and outcome.failure.rule in {"rise", "comply"}:
            assert outcome.counts["agent of before started"]
            return
    pytest.fail("default-on-expiry went unseen")
