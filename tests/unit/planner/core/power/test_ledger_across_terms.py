"""The ledger's interface: fail-over, reservations, coming to rest, budgets to come, several sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from planner.core.power import site_ledger
from planner.core.power.site_state import charged_mw
from planner.domain.ids import GpuId, SiteId
from planner.domain.observation import (
    BudgetCommand,
    GpuCapInForce,
    GpuObservation,
    NodeObservation,
    Observation,
    PowerAckSeen,
    StoredCaps,
)
from planner.domain.plan import PowerDecision
from planner.domain.units import Milliwatts
from tests.unit.planner.core.power.ledger_fixture import CONFIG, HIGH, LOW, A, B, Desk, answer, at, desk, g, seen


def leader_of(d: Desk, orders: Mapping[str, PowerDecision], epoch: int = 2) -> Desk:
    stored = [
        StoredCaps(
            order.node,
            order.decision_id,
            {cap.gpu: cap.setpoint for cap in order.caps},
            {cap.gpu: cap.charged_mw or 0 for cap in order.caps},
        )
        for order in orders.values()
    ]
    found = Desk(d.config, d.now_s)
    found.power = site_ledger.initial(d.config, epoch, d.now_s, stored)
    return found


def test_a_new_leader_starts_from_its_predecessors_ledger_and_waits_a_lease() -> None:
    d = desk()
    d.settled({g("a"): 600_000, g("b"): 600_000})
    d.want({g("a"): 300_000, g("b"): 600_000})
    d.now_s += 11.0  # so that every node has a decision with today's charges
    d.receive(*d.reports())
    last = d.advance()
    new = leader_of(d, last)
    assert charged_mw(new.power) == charged_mw(d.power)
    assert new.charge(g("a")) == 600_000, "the lower is not answered yet"
    new.receive(*d.reports())
    renewals = new.advance()
    assert set(renewals) == {"a", "b"}, "leases must not run out at a fail-over"
    assert all(not order.raises for order in renewals.values())
    assert renewals["a"].decision_id == last["a"].decision_id + 1
    new.take(*(answer(order, new.now_s, epoch=2) for order in renewals.values()))
    new.want({g("a"): 300_000, g("b"): 700_000})
    waits_s = CONFIG.lease_s * (1 + CONFIG.clock_skew) + CONFIG.flight_s
    assert not any(order.raises for order in new.advance(waits_s - 1.0).values())
    new.now_s += 2.0
    new.receive(seen("a", (300_000, LOW), new.now_s), seen("b", (600_000, LOW), new.now_s))
    assert new.advance()["b"].raises


def test_an_answer_to_the_predecessor_frees_nothing_for_its_successor() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    d.want({g("a"): 300_000})
    last = d.advance()
    new = leader_of(d, last)
    new.take(answer(last["a"], new.now_s, epoch=1))
    assert new.charge(g("a")) == 600_000


def test_a_leader_over_an_empty_bus_charges_defaults_and_learns_ids_from_refusals() -> None:
    d = Desk()
    d.power = site_ledger.initial(CONFIG, 5, d.now_s, ())
    d.receive(seen("a", (300_000, 300_000), d.now_s))
    assert charged_mw(d.power) == 2 * HIGH
    order = d.advance()["a"]
    assert not order.raises
    refusal = PowerAckSeen(
        A, 3, 40, 40, "rejected", (GpuCapInForce(g("a"), 300_000, 300_000),), boot="1", clock_s=d.now_s
    )
    d.take(refusal)
    assert charged_mw(d.power) == 2 * HIGH
    assert d.advance(11.0)["a"].decision_id == 41, "it goes on above the ids that the agent has seen"


def test_gpus_without_a_report_are_charged() -> None:
    d = desk(replace(CONFIG, expected_gpus=6))
    assert site_ledger.summary(d.power, d.config, d.now_s).charged_mw == 6 * HIGH


def test_gpus_without_a_report_are_charged_the_highest_limit_and_not_the_default() -> None:
    """A node that joined after an old copy of the bus may have been granted more than its default since."""
    low_default = {g("a"): GpuObservation(g("a"), None, 400_000, 400_000, 500_000, LOW, HIGH)}
    d = Desk(replace(CONFIG, expected_gpus=2))
    d.receive(NodeObservation(A, low_default, 0.0, "1", d.now_s))
    assert site_ledger.summary(d.power, d.config, d.now_s).charged_mw == 500_000 + HIGH


def test_an_unowned_gpu_is_parked_and_one_with_a_pod_keeps_its_cap() -> None:
    d = desk()
    d.settled({g("a"): 500_000, g("b"): 500_000})
    d.receive(seen("a", (500_000, LOW), d.now_s + 1.0, worker="w"))
    d.want({})
    orders = d.advance()
    assert "a" not in orders, "pods before power, coming down"
    assert d.caps(orders)[g("b")] == LOW
    d.receive(seen("a", (500_000, LOW), d.now_s + 2.0))
    assert d.caps(d.advance())[g("a")] == LOW


def test_a_reservation_is_a_grant() -> None:
    d = desk()
    d.settled({g("b"): 300_000})
    assert not site_ledger.reserved(d.power, [g("a")], at(500_000), CONFIG.smallest_step_mw)
    d.want({g("b"): 300_000, g("a"): 500_000})
    d.advance()
    assert site_ledger.reserved(d.power, [g("a")], at(500_000), CONFIG.smallest_step_mw)
    assert not site_ledger.reserved(d.power, [g("a"), GpuId("x")], at(500_000), CONFIG.smallest_step_mw)


def test_a_cap_within_the_site_s_smallest_step_of_its_goal_is_reserved() -> None:
    """The ledger never sends so small a raise: a replica that waited for it would wait without end."""
    d = desk(replace(CONFIG, smallest_step_mw=Milliwatts(20_000)))
    d.settled({g("a"): 400_000})
    d.want({g("a"): 415_000})
    assert not any(order.raises for order in d.advance().values())
    assert site_ledger.reserved(d.power, [g("a")], at(415_000), d.config.smallest_step_mw)
    assert not site_ledger.reserved(d.power, [g("a")], at(420_000), d.config.smallest_step_mw)


def test_a_cut_that_passes_takes_the_reservation_back() -> None:
    d = desk()
    d.settled({g("a"): 500_000})
    assert site_ledger.reserved(d.power, [g("a")], at(500_000), CONFIG.smallest_step_mw)
    cut = BudgetCommand("s", Milliwatts(900_000), d.now_s, sequence=1)
    d.power = site_ledger.absorb(d.power, Observation(budget_commands=(cut,)), d.config, d.now_s)
    d.advance()
    assert not site_ledger.reserved(d.power, [g("a")], at(500_000), CONFIG.smallest_step_mw)


def test_it_comes_to_rest_and_only_renews() -> None:
    d = desk()
    caps = {g("a"): 600_000, g("b"): 600_000}
    d.settled(caps)
    quiet: list[Any] = []
    for _ in range(60):
        orders = d.advance(1.0)
        quiet += orders.values()
        d.take(*(answer(order, d.now_s) for order in orders.values()))
        d.receive(*d.reports())
    assert {cap.setpoint.cap_mw for order in quiet for cap in order.caps} == {600_000, LOW}
    assert not any(order.raises for order in quiet)
    assert 10 <= len(quiet) <= 14, "two nodes, a renewal at each third of a lease of 30 s"
    assert site_ledger.summary(d.power, CONFIG, d.now_s).charged_mw == 2 * 600_000 + 2 * LOW


def test_changes_smaller_than_a_step_are_left_alone() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    d.want({g("a"): 596_000})
    assert not d.advance()
    d.want({g("a"): 604_000})
    assert not d.advance()


def test_fallbacks_shrink_to_the_smallest_budget_known() -> None:
    config = replace(CONFIG, fallback_mw=Milliwatts(400_000), smallest_budget_mw=Milliwatts(1_200_000))
    d = desk(config)
    d.want({g("a"): 600_000})
    order = d.advance()["a"]
    assert {cap.fallback_mw for cap in order.caps} <= {300_000}
    assert not d.power.frozen


def test_fallbacks_are_shared_out_again_once_a_new_leader_knows_the_limits() -> None:
    config = replace(CONFIG, fallback_mw=Milliwatts(400_000), smallest_budget_mw=Milliwatts(1_200_000))
    d = desk(config)
    d.settled({g("a"): 600_000, g("b"): 600_000})
    d.now_s += 11.0  # so that both nodes have a decision
    d.receive(*d.reports())
    new = leader_of(d, d.advance())
    new.advance()  # nothing is known of an inherited node's minimum yet
    new.receive(*d.reports())
    orders = new.advance()
    assert not new.power.frozen, "the same fallbacks fitted under the predecessor"
    assert {cap.fallback_mw for cap in orders["a"].caps} <= {300_000}


def test_a_cap_is_renewed_while_the_agent_would_fall_below_it() -> None:
    """The fallback that counts is the one that the agent was sent, not the one that fits by now."""
    config = replace(CONFIG, fallback_mw=Milliwatts(400_000))
    d = desk(config)
    known = Observation(budget_commands=(BudgetCommand("s", Milliwatts(1_000_000), 200.0, 260.0, 0.0, 1),))
    d.power = site_ledger.absorb(d.power, known, config, d.now_s)
    wants = {g(node, n): 350_000 for node in "ab" for n in (0, 1)}
    d.want(wants)
    first = d.advance()["a"]
    assert {cap.fallback_mw for cap in first.caps} == {250_000}, "the budget to come leaves no more after a lease"
    d.settled(wants)
    d.now_s = 270.0
    sent = []
    for _ in range(8):
        d.receive(*d.reports())
        orders = d.advance(2.0)
        sent += [order for order in orders.values() if order.node == A]
        d.take(*(answer(order, d.now_s) for order in orders.values()))
    assert sent, "its lease must not run out"
    assert {cap.fallback_mw for cap in sent[-1].caps if cap.gpu == g("a")} == {350_000}


def test_overhead_and_margin_come_off_the_budget() -> None:
    config = replace(CONFIG, host_overhead_mw_per_node=Milliwatts(300_000), margin_mw=Milliwatts(100_000))
    d = desk(config)
    assert sum(d.caps(d.advance()).values()) <= 2_000_000 - 700_000


def test_measured_draw_above_the_budget_lowers_caps() -> None:
    d = desk()
    d.settled({g("a"): HIGH, g("b"): HIGH})
    for _ in range(6):
        d.now_s += 0.5
        d.receive(*(seen(name, (HIGH, LOW), d.now_s, draw=550_000) for name in "ab"))
    total = sum(sum(page.caps_mw or ()) for page in d.power.nodes.values())
    orders = d.advance()
    assert site_ledger.summary(d.power, CONFIG, d.now_s).notes
    assert sum(sum(page.caps_mw or ()) for page in d.power.nodes.values()) < total
    assert all(not order.raises for order in orders.values())


def test_nodes_of_other_sites_are_not_ours() -> None:
    d = desk(replace(CONFIG, nodes=("a*",)))
    assert set(d.power.nodes) == {A}


def test_the_next_event_is_a_settle_time_then_a_renewal() -> None:
    d = desk()
    orders = d.advance()
    d.take(*(answer(order, d.now_s) for order in orders.values()))
    assert site_ledger.next_event_s(d.power, CONFIG, d.now_s) == d.now_s + CONFIG.settle_s
    d.advance(CONFIG.settle_s)
    later = site_ledger.next_event_s(d.power, CONFIG, d.now_s)
    assert later == pytest.approx(100.0 + CONFIG.lease_s / 3)


def test_a_cut_that_is_not_answered_is_sent_again_without_waiting_for_a_renewal() -> None:
    d = desk()
    d.settled({g("a"): 600_000, g("b"): 600_000})
    cut = BudgetCommand("s", Milliwatts(1_000_000), d.now_s, sequence=1)
    d.power = site_ledger.absorb(d.power, Observation(budget_commands=(cut,)), d.config, d.now_s)
    orders = d.advance()
    d.take(answer(orders["b"], d.now_s))
    assert not d.advance(1.0)
    again = d.advance(CONFIG.answer_s - 1.0)
    assert set(again) == {"a"}
    assert again["a"].caps == orders["a"].caps
    assert again["a"].decision_id > orders["a"].decision_id


def test_two_sites_share_no_watt() -> None:
    left, right = replace(CONFIG, nodes=("a*",)), replace(CONFIG, site=SiteId("t"), nodes=("b*",))
    one, other = desk(left), desk(right)
    cut = BudgetCommand("t", Milliwatts(900_000), one.now_s, sequence=1)
    for d in (one, other):
        d.power = site_ledger.absorb(d.power, Observation(budget_commands=(cut,)), d.config, d.now_s)
        d.advance()
    assert sum(one.power.nodes[A].caps_mw or ()) == 2 * HIGH
    assert sum(other.power.nodes[B].caps_mw or ()) == 900_000


def test_a_clock_that_is_set_back_delays_neither_renewals_nor_what_settles() -> None:
    d = desk()
    d.settled({g("a"): 600_000, g("b"): 600_000})
    d.want({g("a"): 300_000, g("b"): 600_000})
    d.take(*(answer(order, d.now_s) for order in d.advance().values()))
    d.now_s -= 3600.0
    d.receive(*d.reports())
    assert set(d.advance()) == {"a", "b"}
    assert d.power.nodes[A].total_mw > sum(d.power.nodes[A].charge_mw), "held anew"
    d.advance(CONFIG.settle_s)
    assert d.power.nodes[A].total_mw == sum(d.power.nodes[A].charge_mw) == 300_000 + LOW


def test_a_budget_to_come_that_nothing_can_meet_is_reported_and_freezes_nothing() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    ahead = BudgetCommand("s", Milliwatts(500_000), d.now_s + 3600.0, sequence=1)
    d.power = site_ledger.absorb(d.power, Observation(budget_commands=(ahead,)), d.config, d.now_s)
    d.want({g("a"): 700_000})
    assert d.advance()["a"].raises
    assert any("300 W" in note.sentence for note in site_ledger.summary(d.power, d.config, d.now_s).notes)
