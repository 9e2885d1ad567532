"""The ledger against surprises: cards that appear, nodes that return, orders from the year 1."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from planner.core.power import site_ledger
from planner.core.power.effective_budget import lead_s, level_mw, next_change_s, with_commands
from planner.core.power.site_state import charged_mw, free_mw
from planner.domain.daily_window import BudgetSchedule, BudgetWindow
from planner.domain.observation import (
    BudgetCommand,
    GpuCapInForce,
    GpuObservation,
    NodeCommand,
    NodeObservation,
    Observation,
    PowerAckSeen,
)
from planner.domain.units import Milliwatts
from tests.unit.planner.core.power.ledger_fixture import CONFIG, HIGH, LOW, A, B, Desk, answer, desk, g, seen

NIGHT = BudgetSchedule((BudgetWindow(22 * 60, 6 * 60, Milliwatts(800_000)),), ZoneInfo("America/New_York"))


def with_a_card_more(d: Desk, limit_mw: int) -> NodeObservation:
    """Node ``a`` with one more GPU, which a pod holds and which stands at ``limit_mw``."""
    page = next(report for report in d.reports() if report.node == A)
    gpu = g("a", 1)
    card = GpuObservation(gpu, None, limit_mw, limit_mw, HIGH, LOW, HIGH, worker="somebody")
    return replace(page, gpus={**page.gpus, gpu: card})


def test_a_card_that_appears_below_its_default_is_not_raised_by_a_renewal() -> None:
    d = desk(replace(CONFIG, budget_mw=Milliwatts(1_500_000)), per_node=1)
    d.settled({g("a"): 500_000, g("b"): 500_000})
    d.receive(with_a_card_more(d, 300_000))
    newest = d.power.nodes[A].next_id - 1
    d.now_s += 0.1
    limits = {g("a"): 500_000, g("a", 1): 300_000}
    told = tuple(GpuCapInForce(gpu, mw, mw, True, False) for gpu, mw in limits.items())
    d.take(PowerAckSeen(A, 1, newest, newest, "applied", told, boot="1", clock_s=d.now_s))
    d.now_s += CONFIG.settle_s + 0.5
    d.want({g("a"): 500_000, g("b"): 700_000})
    charged = charged_mw(d.power)
    for _ in range(6):
        d.receive(with_a_card_more(d, 300_000), *(page for page in d.reports() if page.node == B))
        d.advance(4.0)
        free = free_mw(d.power, d.config, d.now_s)
        assert free >= 0 or charged_mw(d.power) <= charged, "above the budget nothing may be promised"
        charged = charged_mw(d.power)


def test_an_order_from_the_year_1_with_a_ramp_of_ages_stops_no_step() -> None:
    config = replace(CONFIG, schedule=NIGHT)
    old = BudgetCommand("s", Milliwatts(1_000_000), from_s=-62_135_596_800.0, ramp_s=1e12, sequence=1)
    assert 0 < level_mw(config, (old,), 1.7e9) <= CONFIG.budget_mw


def test_a_day_of_orders_given_ahead_is_kept_whole() -> None:
    """A grid's day in steps of five minutes, published at once: the first is the one to obey first."""
    day = tuple(
        BudgetCommand("s", Milliwatts(500_000 + n), 1000.0 + 300.0 * n, 1300.0 + 300.0 * n, sequence=n + 1)
        for n in range(2 * 288)
    )
    kept = with_commands((), day, "s", 0.0)
    assert level_mw(CONFIG, kept, 1000.0) == 500_000
    assert next_change_s(CONFIG, kept, 0.0) == 1000.0 - lead_s(CONFIG)


def test_a_node_that_returns_after_its_removal_goes_on_with_its_ids() -> None:
    """Its agent, and what is stored for it, know the ids from before: smaller ones would be passed over unread."""
    d = desk()
    d.settled({g("a"): 600_000})
    last = d.power.nodes[A].next_id
    d.now_s += 30.0
    gone = NodeCommand(A, "remove", sequence=1, issued_s=d.now_s - 1.0)
    d.power = site_ledger.absorb(d.power, Observation(node_commands=(gone,)), d.config, d.now_s)
    assert A not in d.power.nodes
    d.now_s += 5.0
    d.receive(seen("a", (HIGH, HIGH), d.now_s, boot="2"))
    again = d.advance()["a"]
    assert again.decision_id >= last
    assert again.caps, "it is commanded at once"


def test_a_restored_node_goes_on_with_its_ids_too() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    last = d.power.nodes[A].next_id
    d.now_s += 30.0
    gone = NodeCommand(A, "remove", sequence=1, issued_s=d.now_s - 1.0)
    back = NodeCommand(A, "restore", sequence=2, issued_s=d.now_s)
    d.power = site_ledger.absorb(d.power, Observation(node_commands=(gone, back)), d.config, d.now_s)
    d.now_s += 5.0
    d.receive(seen("a", (HIGH, HIGH), d.now_s, boot="2"))
    assert d.advance()["a"].decision_id >= last


def decisions_of(ramp_s: float | None, seconds: int) -> int:
    """Decisions for two nodes with two GPUs each that want all they can get, while the budget falls to half."""
    d = desk(replace(CONFIG, budget_mw=Milliwatts(2_800_000)))
    everything = {g(node, n): HIGH for node in "ab" for n in range(2)}
    d.settled(everything)
    if ramp_s is not None:
        cut = BudgetCommand("s", Milliwatts(1_400_000), from_s=d.now_s + 5.0, ramp_s=ramp_s, sequence=1)
        d.power = site_ledger.absorb(d.power, Observation(budget_commands=(cut,)), d.config, d.now_s)
    sent = 0
    for _ in range(4 * seconds):
        d.want(dict.fromkeys(everything, HIGH))
        for decision in d.advance(0.25).values():
            sent += 1
            d.take(answer(decision, d.now_s))
        d.receive(*d.reports())
        assert charged_mw(d.power) <= level_mw(d.config, d.power.orders, d.now_s)
    return sent


def test_a_ramp_of_a_minute_is_at_most_a_decision_a_node_and_settle_time() -> None:
    assert decisions_of(60.0, 75) <= 2 * 75 / CONFIG.settle_s / 2


@pytest.mark.parametrize("seconds", [600, pytest.param(1800, marks=pytest.mark.nightly)])
def test_a_long_ramp_leaves_about_as_many_decisions_as_no_ramp(seconds: int) -> None:
    """So the history of a node reaches as far back as without one."""
    assert decisions_of(float(seconds), seconds) <= 1.1 * decisions_of(None, seconds)
