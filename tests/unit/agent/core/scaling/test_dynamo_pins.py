"""A Dynamo planner's decisions as pins, interrupted everywhere, with a small etcd and a small bus around the core.

`PinnedStore` holds what outlives a process. `turn` is one look and one action; a crash may come before the action, or
after it and before its answer. Both leave the same to the next process as a turn that was not taken, or that was.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from agent.core.scaling.dynamo_pins import (
    BusSeen,
    CommandSeen,
    CommandsSeen,
    CompleteForeign,
    ForeignDecision,
    ForgetCompletion,
    OurDecision,
    OurPlan,
    PinAction,
    PinId,
    PlannedPool,
    PublishPin,
    next_step,
    pin_id,
)

ROLES = {"prefill": "prefill", "decode": "decode"}
UNPINNED = OurPlan(None, {pool: PlannedPool(role, 1) for pool, role in ROLES.items()})
FIRST = OurDecision(("i", 0), {"prefill": 1, "decode": 1})


@dataclass
class PinnedStore:
    """etcd, the bus, and our planner with its hands. ``carries``: the most replicas of a pool that have watts."""

    store: str = "a"
    revision: int = 1
    decision: tuple[int, int, int, int] | None = None
    """Id, revision, prefill, decode."""
    scaled: int | None = None
    carries: int = 100
    commands: list[CommandSeen] = field(default_factory=list)
    pins: list[tuple[PinId, Mapping[str, int]]] = field(default_factory=list)
    plan: OurPlan | None = UNPINNED
    decided: OurDecision = FIRST
    scaled_by_us: int = 0
    completed: list[PinId] = field(default_factory=list)

    def dynamo_decides(self, number: int, prefill: int, decode: int) -> None:
        self.revision += 1
        self.decision = number, self.revision, prefill, decode

    def foreign(self) -> ForeignDecision | None:
        if self.decision is None:
            return None
        number, revision, prefill, decode = self.decision
        return ForeignDecision(PinId("ns", self.store, revision, number), prefill, decode, self.scaled)

    def bus(self) -> BusSeen:
        seen = CommandsSeen().after(self.commands, "ns")
        return BusSeen(seen, self.plan, self.decided, ("i", self.scaled_by_us))

    def do(self, action: PinAction) -> None:
        """The action as the shell does it: refused where what it depends on has changed."""
        now = self.foreign()
        match action:
            case PublishPin(key, replicas, after):
                if after == len(self.commands):
                    self.commands.append(CommandSeen(len(self.commands) + 1, "pin", key.text(), "dynamo", replicas))
                    self.pins.append((key, replicas))
            case ForgetCompletion(key):
                if now is not None and now.key == key:
                    self.scaled = None
            case CompleteForeign(key):
                if now is None or now.key == key:
                    self.scaled = key.decision_id
                    self.completed.append(key)

    def somebody(self, action: str) -> None:
        self.commands.append(CommandSeen(len(self.commands) + 1, action, None, "ana"))

    def planner_ticks(self) -> None:
        """Our planner takes the newest command, and publishes what the budget carries."""
        if self.commands and self.commands[-1].action == "pin" and self.pins:
            key, replicas = self.pins[-1]
            granted = {pool: min(count, self.carries) for pool, count in replicas.items()}
            why = "the budget has no watts for more"
            pools = {pool: PlannedPool(ROLES[pool], count, why) for pool, count in granted.items()}
            self.plan = OurPlan(key.text(), pools)
            if dict(self.decided.replicas) != granted:
                self.decided = OurDecision(("i", self.decided.key[1] + 1), granted)

    def hands_work(self) -> None:
        self.scaled_by_us = self.decided.key[1]

    def turn(self) -> str:
        step = next_step(self.foreign(), self.bus(), self.scaled)
        if step.action is not None:
            self.do(step.action)
        return step.open_because

    def settle(self) -> str:
        """Everybody works until nothing changes; why the decision is open then."""
        for _ in range(8):
            self.turn()
            self.planner_ticks()
            self.hands_work()
        return self.turn()


def test_a_decision_is_pinned_and_completed_when_ours_is_applied() -> None:
    site = PinnedStore()
    site.dynamo_decides(0, 2, 3)
    assert site.turn() == "it is being pinned"
    assert site.pins == [(PinId("ns", "a", 2, 0), {"prefill": 2, "decode": 3})]
    assert site.turn() == "our planner has not taken its pin yet"
    site.planner_ticks()
    assert site.turn() == "decision 1 of our planner is being carried out"
    assert site.scaled is None
    site.hands_work()
    site.turn()
    assert site.scaled == 0
    assert site.turn() == ""
    assert len(site.pins) == len(site.completed) == 1


def test_a_decision_with_the_counts_in_force_needs_no_new_decision_of_ours() -> None:
    site = PinnedStore()
    site.dynamo_decides(0, 1, 1)
    assert site.settle() == ""
    assert (site.scaled, site.decided.key) == (0, ("i", 0))


def test_a_pin_that_the_budget_cannot_carry_stays_open_and_says_why() -> None:
    site = PinnedStore(carries=3)
    site.dynamo_decides(0, 2, 5)
    assert site.settle() == "decode has 3 of 5: the budget has no watts for more"
    assert site.scaled is None
    site.carries = 5
    assert site.settle() == ""
    assert site.scaled == 0


def test_a_bound_is_named_where_it_is_the_reason() -> None:
    pool = PlannedPool("decode", 4, "an operator pinned the replicas", least=1, most=4)
    assert (pool.against(9), pool.against(0)) == ("its max_replicas is 4", "its min_replicas is 1")


def test_at_every_prefix_one_pin_for_each_id_in_order_and_no_late_completion() -> None:
    """Every sequence of five events, with a crash before or after each action, and then rest. Ids go back, too."""
    for events in itertools.product(("turn", "lost", "tick", "hands", "decide"), repeat=5):
        site, held = PinnedStore(), None
        site.dynamo_decides(1, 1, 1)
        numbers = itertools.count(2)
        for event in events:
            match event:
                case "turn":
                    site.turn()
                case "lost":
                    # The process looks, is paused, and acts at the end on what it saw: it has died or lost its claim.
                    held = held or next_step(site.foreign(), site.bus(), site.scaled).action
                case "tick":
                    site.planner_ticks()
                case "hands":
                    site.hands_work()
                case "decide":
                    number = next(numbers)
                    site.dynamo_decides(number % 2, 2, 1 + number % 3)
            correct(site)
        if held is not None:
            site.do(held)
        correct(site)
        assert site.settle() == "", events
        correct(site)
        foreign = site.foreign()
        assert foreign is not None
        assert foreign.key == site.pins[-1][0], events
        assert site.scaled == foreign.key.decision_id


def correct(site: PinnedStore) -> None:
    pinned = [key for key, _ in site.pins]
    assert len(pinned) == len(set(pinned)), "two pins for one decision"
    assert [key.revision for key in pinned] == sorted(key.revision for key in pinned)
    foreign = site.foreign()
    assert foreign is not None
    # An id that went back looks completed by an older one until it is pinned; from then on never again.
    if foreign.completed and foreign.key in pinned:
        assert site.completed[-1] == foreign.key, "completed by what was done for an older one"
        assert site.decided.replicas == site.pins[-1][1]
        assert site.scaled_by_us >= site.decided.key[1]


def test_an_id_that_begins_again_at_0_is_not_completed_by_an_older_one() -> None:
    site = PinnedStore(scaled=3)
    site.dynamo_decides(0, 4, 4)
    assert site.turn() == "it is new"
    assert site.scaled is None
    assert site.settle() == ""
    assert site.scaled == 0
    site.decision = None  # its lease ran out
    assert site.settle() == ""
    assert len(site.pins) == 1
    site.dynamo_decides(0, 2, 2)
    assert site.settle() == ""
    assert [key.decision_id for key, _ in site.pins] == [0, 0]
    assert site.decided.replicas == {"prefill": 2, "decode": 2}


def test_a_decision_that_vanishes_is_carried_out_and_completed_all_the_same() -> None:
    site = PinnedStore()
    site.dynamo_decides(4, 2, 2)
    site.turn()
    site.decision = None  # its lease ran out, and its planner lives
    assert site.settle() == ""
    assert site.scaled == 4
    assert site.decided.replicas == {"prefill": 2, "decode": 2}
    site.store, site.scaled = "b", None  # etcd lost all
    assert site.settle() == ""
    assert [site.scaled, len(site.pins)] == [4, 1]


def test_an_etcd_without_its_data_begins_a_new_count() -> None:
    site = PinnedStore()
    site.dynamo_decides(0, 4, 4)
    site.settle()
    site.store, site.revision, site.scaled = "b", 1, None
    site.dynamo_decides(0, 2, 2)
    assert site.settle() == ""
    assert [(key.store, key.revision) for key, _ in site.pins] == [("a", 2), ("b", 2)]


def test_two_planners_with_one_id_are_two_decisions() -> None:
    site = PinnedStore()
    site.dynamo_decides(0, 1, 1)
    site.settle()
    site.dynamo_decides(0, 9, 9)
    assert site.settle() == ""
    assert [replicas["decode"] for _, replicas in site.pins] == [1, 9]


def test_a_process_that_read_etcd_before_another_pinned_a_newer_decision_does_nothing() -> None:
    site = PinnedStore()
    site.dynamo_decides(0, 2, 2)
    before = site.foreign()
    site.turn()
    site.dynamo_decides(1, 3, 3)
    site.turn()
    step = next_step(before, site.bus())
    assert step.action is None
    assert step.open_because == "a later decision has been pinned already"


def test_an_operator_has_the_last_word_until_the_next_decision() -> None:
    site = PinnedStore()
    site.dynamo_decides(0, 2, 2)
    site.turn()
    site.somebody("release")
    site.planner_ticks()
    assert site.settle() == "ana commanded release after its pin"
    assert len(site.pins) == 1
    site.dynamo_decides(1, 3, 3)
    assert site.settle() == ""
    site.somebody("pause")
    site.dynamo_decides(2, 1, 1)
    site.turn()
    site.somebody("pause")
    assert site.turn() == "ana commanded pause after its pin"
    site.somebody("resume")
    assert site.turn() != "ana commanded pause after its pin"


@pytest.mark.parametrize(
    ("counts", "pools", "why"),
    [
        ((None, None), ROLES, "it sets no count"),
        ((-1, None), ROLES, "it sets no count"),
        ((100_001, 1), ROLES, "100001 prefill workers: not between 0 and 100000"),
        ((1, 1), {"all": "aggregated"}, "1 prefill workers: the deployment has no pool of that role"),
        ((1, 1), {**ROLES, "long": "decode"}, "1 decode workers: which of the pools decode, long?"),
        ((1, 1), None, "no plan of this deployment is on the bus: is a Wattscale planner running?"),
    ],
)
def test_what_cannot_be_pinned_stays_open(
    counts: tuple[int | None, int | None], pools: dict[str, str] | None, why: str
) -> None:
    plan = None if pools is None else OurPlan(None, {name: PlannedPool(role, 1) for name, role in pools.items()})
    foreign = ForeignDecision(PinId("ns", "a", 2, 0), *counts, None)
    step = next_step(foreign, BusSeen(plan=plan))
    assert step.action is None
    assert step.open_because == why


def test_a_decode_count_is_of_aggregated_workers_where_there_are_only_such() -> None:
    plan = OurPlan(None, {"workers": PlannedPool("aggregated", 1), "web": PlannedPool("frontend", 1)})
    foreign = ForeignDecision(PinId("ns", "a", 2, 0), 0, 3, None)
    step = next_step(foreign, BusSeen(plan=plan))
    assert step.action == PublishPin(foreign.key, {"workers": 3}, 0)


def test_a_pin_comes_after_the_last_command_also_where_that_cannot_be_read() -> None:
    seen = CommandsSeen().after([CommandSeen(3, "release", None, "ana")], "ns", 7)
    assert (seen.sequence, seen.overridden) == (7, CommandSeen(3, "release", None, "ana"))
    assert seen.after([], "ns").sequence == 7
    foreign = ForeignDecision(PinId("ns", "a", 2, 0), 1, 1, None)
    assert next_step(foreign, BusSeen(seen, UNPINNED)).action == PublishPin(foreign.key, {"prefill": 1, "decode": 1}, 7)


def test_ids_are_read_back_as_written() -> None:
    key = PinId("a/b", "c", 7, 0)
    assert pin_id(key.text()) == key
    assert pin_id("dynamo/x/y/1/-1") is pin_id(None) is pin_id("") is None
    assert replace(key, revision=8) != key
