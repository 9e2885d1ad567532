"""The ledger's interface: odd sequences of messages, lost limits, cuts and removal."""

from __future__ import annotations

import pytest

from planner.core.power import site_ledger
from planner.core.power.site_state import charged_mw
from planner.domain.observation import BudgetCommand, NodeCommand, Observation
from planner.domain.units import GpuSetpoint, Milliwatts
from tests.unit.planner.core.power.ledger_fixture import CONFIG, HIGH, LOW, A, answer, desk, g, seen


def test_the_first_leader_charges_defaults_and_begins_with_lowers() -> None:
    d = desk()
    assert charged_mw(d.power) == 4 * HIGH
    orders = d.advance()
    assert sum(d.caps(orders).values()) <= CONFIG.budget_mw
    assert all(order.only_lowers and not order.raises for order in orders.values())
    assert charged_mw(d.power) == 4 * HIGH, "asked is not done"


def test_watts_come_free_only_after_readback_and_settle_time() -> None:
    d = desk()
    orders = d.advance()
    d.take(*(answer(order, d.now_s) for order in orders.values()))
    assert charged_mw(d.power) == 4 * HIGH
    d.advance(1.9)
    assert charged_mw(d.power) == 4 * HIGH
    d.advance(0.2)
    assert charged_mw(d.power) <= CONFIG.budget_mw


def test_a_raise_waits_for_the_lower_that_pays_for_it() -> None:
    d = desk()
    d.settled({g("a"): HIGH, g("a", 1): HIGH, g("b"): 300_000, g("b", 1): 300_000})
    d.want({g("b"): HIGH, g("b", 1): HIGH})
    orders = d.advance()
    assert set(orders) == {"a"}, "the lower alone"
    assert not d.advance(3.0).get("b")
    d.receive(*d.reports())
    d.take(answer(orders["a"], d.now_s))
    assert "b" not in d.advance(1.0), "not settled"
    assert d.advance(1.1)["b"].raises


class SlowClock(GpuSetpoint):
    """A setpoint with something beside its cap, as a second knob would be."""


def test_the_ledger_bounds_the_watts_of_a_setpoint_and_leaves_its_other_knobs_alone() -> None:
    d = desk()
    d.settled({g("a"): 300_000, g("b"): 300_000})
    slow = SlowClock(Milliwatts(HIGH))
    d.power = site_ledger.want(d.power, dict.fromkeys((g("a"), g("a", 1), g("b"), g("b", 1)), slow))
    sent = {cap.gpu: cap.setpoint for order in d.advance().values() for cap in order.caps}
    assert {type(setpoint) for setpoint in sent.values()} == {SlowClock}
    assert 300_000 < max(setpoint.cap_mw for setpoint in sent.values()) < HIGH, "four at most do not fit the budget"


def test_an_answer_to_an_older_decision_frees_nothing_of_a_newer_grant() -> None:
    d = desk()
    d.settled({g("a"): LOW, g("b"): HIGH})
    d.want({g("a"): 400_000, g("b"): HIGH})
    first = d.advance()["a"]
    assert first.raises
    assert d.charge(g("a")) == 400_000
    d.want({g("a"): 500_000, g("b"): HIGH})
    d.advance(2.1)
    assert d.charge(g("a")) == 500_000
    d.take(answer(first, d.now_s))
    assert d.charge(g("a")) == 500_000


def test_an_acknowledged_raise_stays_charged_though_its_reading_is_lower() -> None:
    """The agent may carry it out, or restore it, at any time while it is the newest word."""
    d = desk()
    d.settled({g("a"): LOW})
    d.want({g("a"): 600_000})
    order = d.advance()["a"]
    d.take(answer(order, d.now_s, {g("a"): LOW, g("a", 1): LOW}, status="partial"))
    assert d.charge(g("a")) == 600_000


def test_telemetry_older_than_the_answer_changes_nothing_and_newer_raises() -> None:
    d = desk()
    d.settled({g("a"): 300_000})
    told_s = d.power.nodes[A].clock_s or 0.0
    d.receive(seen("a", (HIGH, HIGH), told_s - 0.5))
    assert d.charge(g("a")) == 300_000
    d.receive(seen("a", (HIGH, LOW), told_s + 0.5))
    assert d.charge(g("a")) == HIGH
    d.receive(seen("a", (300_000, LOW), told_s + 1.0))
    assert d.charge(g("a")) == HIGH, "telemetry frees nothing"


def test_an_older_answer_to_the_same_decision_cannot_undo_a_newer_one() -> None:
    d = desk()
    d.settled({g("a"): 300_000})
    d.want({g("a"): 250_000})
    order = d.advance()["a"]
    drifted = answer(order, d.now_s + 2.0, {g("a"): HIGH, g("a", 1): LOW})
    d.take(drifted, answer(order, d.now_s + 1.0))
    assert d.charge(g("a")) == HIGH
    d.take(answer(order, d.now_s + 3.0))
    assert d.charge(g("a")) == 250_000


def test_an_answer_of_another_process_to_the_same_decision_frees_nothing() -> None:
    d = desk()
    d.settled({g("a"): 300_000})
    d.want({g("a"): 250_000})
    order = d.advance()["a"]
    d.take(answer(order, d.now_s, {g("a"): HIGH, g("a", 1): LOW}))
    d.take(answer(order, d.now_s + 9.0, boot="2"))
    assert d.charge(g("a")) == HIGH


@pytest.mark.parametrize("why", ["reset", "unhealthy"])
def test_a_lost_limit_is_charged_its_default(why: str) -> None:
    d = desk()
    d.settled({g("a"): 300_000})
    d.want({g("a"): 250_000})
    order = d.advance()["a"]
    d.take(answer(order, d.now_s, reset=why == "reset", healthy=why != "unhealthy", status="partial"))
    assert d.charge(g("a")) == HIGH


def test_a_failed_read_is_not_a_low_limit() -> None:
    d = desk()
    d.settled({g("a"): 300_000})
    d.want({g("a"): 250_000})
    order = d.advance()["a"]
    d.take(answer(order, d.now_s, {g("a"): None, g("a", 1): None}))
    assert d.charge(g("a")) == 300_000
    told_s = d.now_s + 1.0
    d.receive(seen("a", (None, None), told_s))
    assert d.charge(g("a")) == 300_000


def test_a_gpu_missing_from_a_report_keeps_its_charge_and_a_new_one_joins_at_its_default() -> None:
    d = desk()
    d.settled({g("a"): 300_000})
    before = charged_mw(d.power)
    d.receive(seen("a", (300_000,), d.now_s + 1.0))
    assert charged_mw(d.power) == before
    d.receive(seen("a", (300_000, LOW, 350_000), d.now_s + 2.0))
    assert charged_mw(d.power) == before + HIGH


def test_a_cut_is_proportional_above_the_lowest_caps_and_only_lowers() -> None:
    d = desk()
    d.settled({g("a"): 600_000, g("a", 1): 400_000, g("b"): 400_000, g("b", 1): 200_000})
    cut = BudgetCommand("s", Milliwatts(1_200_000), d.now_s, sequence=1)
    d.power = site_ledger.absorb(d.power, Observation(budget_commands=(cut,)), d.config, d.now_s)
    orders = d.advance()
    assert all(order.only_lowers for order in orders.values())
    assert d.caps(orders) == {g("a"): 400_000, g("a", 1): 300_000, g("b"): 300_000, g("b", 1): 200_000}


def test_a_cut_below_the_lowest_caps_names_the_exact_shortfall() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    cut = BudgetCommand("s", Milliwatts(700_000), d.now_s, sequence=1)
    d.power = site_ledger.absorb(d.power, Observation(budget_commands=(cut,)), d.config, d.now_s)
    orders = d.advance()
    assert all(cap.setpoint.cap_mw == LOW for order in orders.values() for cap in order.caps)
    summary = site_ledger.summary(d.power, d.config, d.now_s)
    assert summary.shortfall_mw == 100_000
    assert any("100 W" in note.sentence for note in summary.notes)


def test_a_silent_nodes_watts_are_taken_from_the_others_and_lent_to_none() -> None:
    d = desk()
    d.settled({g("a"): 600_000, g("a", 1): 600_000, g("b"): 400_000, g("b", 1): 400_000})
    d.now_s += 20.0
    d.receive(seen("b", (400_000, 400_000), d.now_s))
    cut = BudgetCommand("s", Milliwatts(1_700_000), d.now_s, sequence=1)
    d.power = site_ledger.absorb(d.power, Observation(budget_commands=(cut,)), d.config, d.now_s)
    orders = d.advance()
    assert d.caps({"b": orders["b"]}) == {g("b"): 250_000, g("b", 1): 250_000}
    assert sum(d.power.nodes[A].charge_mw) == 1_200_000


def test_an_announced_cut_is_kept_before_it_comes() -> None:
    d = desk()
    d.settled({g("a"): 700_000, g("b"): 700_000})
    ahead = BudgetCommand("s", Milliwatts(1_000_000), d.now_s + 60.0, sequence=1)
    d.power = site_ledger.absorb(d.power, Observation(budget_commands=(ahead,)), d.config, d.now_s)
    assert not any(order.only_lowers for order in d.advance().values())
    d.now_s += 57.0
    d.receive(*d.reports())
    assert sum(d.caps(d.advance()).values()) <= 1_000_000


def test_a_removed_node_is_dropped_and_comes_back_only_with_a_later_sign_of_life() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    last = d.reports()
    d.now_s += 30.0
    gone = NodeCommand(A, "remove", sequence=1, issued_s=d.now_s - 1.0)
    d.power = site_ledger.absorb(d.power, Observation(node_commands=(gone,)), d.config, d.now_s)
    assert A not in d.power.nodes
    d.receive(*last)
    assert A not in d.power.nodes, "the same old report, shown again"
    d.now_s += 5.0
    d.receive(seen("a", (HIGH, HIGH), d.now_s, boot="2"))
    assert sum(d.power.nodes[A].charge_mw) == 2 * HIGH
    d.power = site_ledger.absorb(d.power, Observation(node_commands=(gone,)), d.config, d.now_s)
    assert A in d.power.nodes, "a command received again is not a new one"


def test_a_node_that_reported_after_the_order_is_not_gone() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    gone = NodeCommand(A, "remove", sequence=1, issued_s=d.now_s - 50.0)
    d.power = site_ledger.absorb(d.power, Observation(node_commands=(gone,)), d.config, d.now_s)
    assert A in d.power.nodes
