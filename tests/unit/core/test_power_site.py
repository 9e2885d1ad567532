"""The ledger's door: odd sequences of messages, cuts, fail-over, removal, reservations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from planner.core.power import invariants, site
from planner.core.power.state import PowerState, charged_mw
from planner.domain.config import SiteConfig
from planner.domain.ids import GpuId, NodeId, SiteId
from planner.domain.observation import (
    BudgetOrder,
    GpuInForce,
    GpuObservation,
    NodeObservation,
    NodeOrder,
    Observation,
    PowerAckSeen,
    StoredCaps,
)
from planner.domain.plan import PowerOrder

HIGH, LOW = 700_000, 200_000
CONFIG = SiteConfig(SiteId("s"), budget_mw=2_000_000, answer_s=3.0, settle_s=2.0)
A, B = NodeId("a"), NodeId("b")


def g(node: str, n: int = 0) -> GpuId:
    return GpuId(f"{node}-{n}")


def seen(
    node: str,
    limits: tuple[int | None, ...],
    clock_s: float,
    *,
    boot: str = "1",
    age_s: float = 0.0,
    healthy: bool = True,
    worker: str | None = None,
    draw: int | None = None,
) -> NodeObservation:
    gpus = {
        g(node, n): GpuObservation(g(node, n), draw, mw, mw, HIGH, LOW, HIGH, healthy=healthy, worker=worker)
        for n, mw in enumerate(limits)
    }
    return NodeObservation(NodeId(node), gpus, age_s, boot, clock_s)


def answer(
    order: PowerOrder,
    clock_s: float,
    limits: Mapping[GpuId, int | None] | None = None,
    *,
    boot: str = "1",
    epoch: int = 1,
    status: str = "applied",
    reset: bool = False,
    healthy: bool = True,
) -> PowerAckSeen:
    told = limits if limits is not None else {cap.gpu: cap.cap_mw for cap in order.caps}
    gpus = tuple(GpuInForce(gpu, mw, mw, healthy, reset) for gpu, mw in told.items())
    return PowerAckSeen(
        order.node, epoch, order.decision_id, order.decision_id, status, gpus, boot=boot, clock_s=clock_s
    )


@dataclass
class Desk:
    """A ledger with its clock; every step is checked against the invariants."""

    config: SiteConfig = CONFIG
    now_s: float = 100.0
    power: PowerState = field(init=False)

    def __post_init__(self) -> None:
        self.power = site.initial(replace(self.config, answer_s=0.0), 1, self.now_s, ())

    def hear(self, *nodes: NodeObservation) -> None:
        self.power = site.absorb(self.power, Observation(nodes={n.node: n for n in nodes}), self.config, self.now_s)

    def take(self, *acks: PowerAckSeen) -> None:
        self.power = site.absorb(self.power, Observation(power_acks=acks), self.config, self.now_s)

    def want(self, caps: Mapping[GpuId, int]) -> None:
        self.power = site.want(self.power, caps)

    def advance(self, after_s: float = 0.0) -> dict[str, PowerOrder]:
        self.now_s += after_s
        before = self.power
        self.power, orders = site.advance(before, self.config, self.now_s)
        found = (*invariants.step_taken(before, self.power, orders, self.config, self.now_s),)
        assert not found, found
        assert not invariants.pages(self.power.nodes.values())
        return {str(order.node): order for order in orders}

    def charge(self, gpu: GpuId) -> int:
        page = self.power.nodes[self.power.where[gpu]]
        return page.charge_mw[page.cards.gpus.index(gpu)]

    def settled(self, caps: Mapping[GpuId, int]) -> None:
        """Everything answered and settled at ``caps``."""
        self.want(caps)
        for _ in range(12):
            for order in self.advance(0.1).values():
                self.take(answer(order, self.now_s))
            self.now_s += 2.1
            self.hear(*self.reports())

    def reports(self) -> list[NodeObservation]:
        return [
            NodeObservation(
                name,
                {
                    gpu: GpuObservation(gpu, None, hw, hw, HIGH, LOW, HIGH)
                    for gpu, hw in zip(page.cards.gpus, page.hardware_mw, strict=True)
                },
                0.0,
                "1",
                self.now_s,
            )
            for name, page in self.power.nodes.items()
        ]

    def caps(self, orders: Mapping[str, PowerOrder]) -> dict[GpuId, int]:
        return {cap.gpu: cap.cap_mw for order in orders.values() for cap in order.caps}


def desk(config: SiteConfig = CONFIG, nodes: str = "ab", per_node: int = 2) -> Desk:
    found = Desk(config)
    found.hear(*(seen(name, (HIGH,) * per_node, found.now_s) for name in nodes))
    return found


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
    d.hear(*d.reports())
    d.take(answer(orders["a"], d.now_s))
    assert "b" not in d.advance(1.0), "not settled"
    assert d.advance(1.1)["b"].raises


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
    d.hear(seen("a", (HIGH, HIGH), told_s - 0.5))
    assert d.charge(g("a")) == 300_000
    d.hear(seen("a", (HIGH, LOW), told_s + 0.5))
    assert d.charge(g("a")) == HIGH
    d.hear(seen("a", (300_000, LOW), told_s + 1.0))
    assert d.charge(g("a")) == HIGH, "telemetry frees nothing"


def test_an_older_answer_to_the_same_decision_can_not_undo_a_newer_one() -> None:
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
    d.hear(seen("a", (None, None), told_s))
    assert d.charge(g("a")) == 300_000


def test_a_gpu_missing_from_a_report_keeps_its_charge_and_a_new_one_joins_at_its_default() -> None:
    d = desk()
    d.settled({g("a"): 300_000})
    before = charged_mw(d.power)
    d.hear(seen("a", (300_000,), d.now_s + 1.0))
    assert charged_mw(d.power) == before
    d.hear(seen("a", (300_000, LOW, 350_000), d.now_s + 2.0))
    assert charged_mw(d.power) == before + HIGH


def test_a_cut_is_proportional_above_the_floors_and_only_lowers() -> None:
    d = desk()
    d.settled({g("a"): 600_000, g("a", 1): 400_000, g("b"): 400_000, g("b", 1): 200_000})
    cut = BudgetOrder("s", 1_200_000, d.now_s, sequence=1)
    d.power = site.absorb(d.power, Observation(budget_orders=(cut,)), d.config, d.now_s)
    orders = d.advance()
    assert all(order.only_lowers for order in orders.values())
    assert d.caps(orders) == {g("a"): 400_000, g("a", 1): 300_000, g("b"): 300_000, g("b", 1): 200_000}


def test_a_cut_below_the_floors_names_the_exact_shortfall() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    cut = BudgetOrder("s", 700_000, d.now_s, sequence=1)
    d.power = site.absorb(d.power, Observation(budget_orders=(cut,)), d.config, d.now_s)
    orders = d.advance()
    assert all(cap.cap_mw == LOW for order in orders.values() for cap in order.caps)
    summary = site.summary(d.power, d.config, d.now_s)
    assert summary.shortfall_mw == 100_000
    assert any("100 W" in note.sentence for note in summary.notes)


def test_a_silent_nodes_watts_are_taken_from_the_others_and_lent_to_nobody() -> None:
    d = desk()
    d.settled({g("a"): 600_000, g("a", 1): 600_000, g("b"): 400_000, g("b", 1): 400_000})
    d.now_s += 20.0
    d.hear(seen("b", (400_000, 400_000), d.now_s))
    cut = BudgetOrder("s", 1_700_000, d.now_s, sequence=1)
    d.power = site.absorb(d.power, Observation(budget_orders=(cut,)), d.config, d.now_s)
    orders = d.advance()
    assert d.caps({"b": orders["b"]}) == {g("b"): 250_000, g("b", 1): 250_000}
    assert sum(d.power.nodes[A].charge_mw) == 1_200_000


def test_an_announced_cut_is_kept_before_it_comes() -> None:
    d = desk()
    d.settled({g("a"): 700_000, g("b"): 700_000})
    ahead = BudgetOrder("s", 1_000_000, d.now_s + 60.0, sequence=1)
    d.power = site.absorb(d.power, Observation(budget_orders=(ahead,)), d.config, d.now_s)
    assert not any(order.only_lowers for order in d.advance().values())
    d.now_s += 57.0
    d.hear(*d.reports())
    assert sum(d.caps(d.advance()).values()) <= 1_000_000


def test_a_removed_node_is_dropped_and_comes_back_only_with_a_later_sign_of_life() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    last = d.reports()
    d.now_s += 30.0
    gone = NodeOrder(A, "remove", sequence=1, issued_s=d.now_s - 1.0)
    d.power = site.absorb(d.power, Observation(node_orders=(gone,)), d.config, d.now_s)
    assert A not in d.power.nodes
    d.hear(*last)
    assert A not in d.power.nodes, "the same old report, shown again"
    d.now_s += 5.0
    d.hear(seen("a", (HIGH, HIGH), d.now_s, boot="2"))
    assert sum(d.power.nodes[A].charge_mw) == 2 * HIGH
    d.power = site.absorb(d.power, Observation(node_orders=(gone,)), d.config, d.now_s)
    assert A in d.power.nodes, "an order heard again is not a new one"


def test_a_node_that_was_heard_of_after_the_order_is_not_gone() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    gone = NodeOrder(A, "remove", sequence=1, issued_s=d.now_s - 50.0)
    d.power = site.absorb(d.power, Observation(node_orders=(gone,)), d.config, d.now_s)
    assert A in d.power.nodes


def leader_of(d: Desk, orders: Mapping[str, PowerOrder], epoch: int = 2) -> Desk:
    stored = [
        StoredCaps(
            order.node,
            order.decision_id,
            {cap.gpu: cap.cap_mw for cap in order.caps},
            {cap.gpu: cap.charged_mw or 0 for cap in order.caps},
        )
        for order in orders.values()
    ]
    found = Desk(d.config, d.now_s)
    found.power = site.initial(d.config, epoch, d.now_s, stored)
    return found


def test_a_new_leader_starts_from_its_predecessors_ledger_and_waits_a_lease() -> None:
    d = desk()
    d.settled({g("a"): 600_000, g("b"): 600_000})
    d.want({g("a"): 300_000, g("b"): 600_000})
    d.now_s += 11.0  # so that every node has a decision with today's charges
    d.hear(*d.reports())
    last = d.advance()
    new = leader_of(d, last)
    assert charged_mw(new.power) == charged_mw(d.power)
    assert new.charge(g("a")) == 600_000, "the lower is not answered yet"
    new.hear(*d.reports())
    renewals = new.advance()
    assert set(renewals) == {"a", "b"}, "leases must not run out at a fail-over"
    assert all(not order.raises for order in renewals.values())
    assert renewals["a"].decision_id == last["a"].decision_id + 1
    new.take(*(answer(order, new.now_s, epoch=2) for order in renewals.values()))
    new.want({g("a"): 300_000, g("b"): 700_000})
    waits_s = CONFIG.lease_s * (1 + CONFIG.clock_skew) + CONFIG.flight_s
    assert not any(order.raises for order in new.advance(waits_s - 1.0).values())
    new.now_s += 2.0
    new.hear(seen("a", (300_000, LOW), new.now_s), seen("b", (600_000, LOW), new.now_s))
    assert new.advance()["b"].raises


def test_an_answer_to_the_predecessor_frees_nothing_for_its_successor() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    d.want({g("a"): 300_000})
    last = d.advance()
    new = leader_of(d, last)
    new.take(answer(last["a"], new.now_s, epoch=1))
    assert new.charge(g("a")) == 600_000


def test_a_leader_that_could_not_read_the_bus_charges_defaults() -> None:
    d = Desk()
    d.power = site.initial(CONFIG, 5, d.now_s)
    d.hear(seen("a", (300_000, 300_000), d.now_s))
    assert charged_mw(d.power) == 2 * HIGH
    order = d.advance()["a"]
    assert not order.raises
    refusal = PowerAckSeen(A, 3, 40, 40, "rejected", (GpuInForce(g("a"), 300_000, 300_000),), boot="1", clock_s=d.now_s)
    d.take(refusal)
    assert charged_mw(d.power) == 2 * HIGH
    assert d.advance(11.0)["a"].decision_id == 41, "it goes on above the ids that the agent has seen"


def test_gpus_that_nobody_reported_are_charged() -> None:
    d = desk(replace(CONFIG, expected_gpus=6))
    assert site.summary(d.power, d.config, d.now_s).charged_mw == 6 * HIGH


def test_nobodys_gpu_is_parked_and_one_with_a_pod_keeps_its_cap() -> None:
    d = desk()
    d.settled({g("a"): 500_000, g("b"): 500_000})
    d.hear(seen("a", (500_000, LOW), d.now_s + 1.0, worker="w"))
    d.want({})
    orders = d.advance()
    assert "a" not in orders, "pods before power, coming down"
    assert d.caps(orders)[g("b")] == LOW
    d.hear(seen("a", (500_000, LOW), d.now_s + 2.0))
    assert d.caps(d.advance())[g("a")] == LOW


def test_a_reservation_is_a_grant_and_affordable_asks_the_free_pool() -> None:
    d = desk()
    d.settled({g("b"): 300_000})
    assert not site.reserved(d.power, [g("a")], 500_000)
    assert site.affordable(d.power, CONFIG, {g("a"): 500_000}, d.now_s)
    assert not site.affordable(d.power, CONFIG, {g("a"): HIGH, g("a", 1): HIGH, g("b"): HIGH}, d.now_s)
    assert not site.affordable(d.power, CONFIG, {GpuId("x"): 1}, d.now_s)
    d.want({g("b"): 300_000, g("a"): 500_000})
    d.advance()
    assert site.reserved(d.power, [g("a")], 500_000)
    assert not site.reserved(d.power, [g("a"), GpuId("x")], 500_000)


def test_a_cut_that_passes_takes_the_reservation_back() -> None:
    d = desk()
    d.settled({g("a"): 500_000})
    assert site.reserved(d.power, [g("a")], 500_000)
    cut = BudgetOrder("s", 900_000, d.now_s, sequence=1)
    d.power = site.absorb(d.power, Observation(budget_orders=(cut,)), d.config, d.now_s)
    d.advance()
    assert not site.reserved(d.power, [g("a")], 500_000)


def test_it_comes_to_rest_and_only_renews() -> None:
    d = desk()
    caps = {g("a"): 600_000, g("b"): 600_000}
    d.settled(caps)
    quiet = []
    for _ in range(60):
        orders = d.advance(1.0)
        quiet += orders.values()
        d.take(*(answer(order, d.now_s) for order in orders.values()))
        d.hear(*d.reports())
    assert {cap.cap_mw for order in quiet for cap in order.caps} == {600_000, LOW}
    assert not any(order.raises for order in quiet)
    assert 10 <= len(quiet) <= 14, "two nodes, a renewal at each third of a lease of 30 s"
    assert site.summary(d.power, CONFIG, d.now_s).charged_mw == 2 * 600_000 + 2 * LOW


def test_changes_smaller_than_a_step_are_left_alone() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    d.want({g("a"): 596_000})
    assert not d.advance()
    d.want({g("a"): 604_000})
    assert not d.advance()


def test_fallbacks_shrink_to_the_smallest_budget_known() -> None:
    config = replace(CONFIG, fallback_mw=400_000, smallest_budget_mw=1_200_000)
    d = desk(config)
    d.want({g("a"): 600_000})
    order = d.advance()["a"]
    assert {cap.fallback_mw for cap in order.caps} <= {300_000}
    assert not d.power.frozen


def test_overhead_and_margin_come_off_the_budget() -> None:
    config = replace(CONFIG, host_overhead_mw_per_node=300_000, margin_mw=100_000)
    d = desk(config)
    assert sum(d.caps(d.advance()).values()) <= 2_000_000 - 700_000


def test_measured_draw_above_the_budget_lowers_caps() -> None:
    d = desk()
    d.settled({g("a"): HIGH, g("b"): HIGH})
    for _ in range(6):
        d.now_s += 0.5
        d.hear(*(seen(name, (HIGH, LOW), d.now_s, draw=550_000) for name in "ab"))
    total = sum(sum(page.caps_mw or ()) for page in d.power.nodes.values())
    orders = d.advance()
    assert site.summary(d.power, CONFIG, d.now_s).notes
    assert sum(sum(page.caps_mw or ()) for page in d.power.nodes.values()) < total
    assert all(not order.raises for order in orders.values())


def test_nodes_of_other_sites_are_not_ours() -> None:
    d = desk(replace(CONFIG, nodes=("a*",)))
    assert set(d.power.nodes) == {A}


def test_the_next_event_is_a_settle_time_then_a_renewal() -> None:
    d = desk()
    orders = d.advance()
    d.take(*(answer(order, d.now_s) for order in orders.values()))
    assert site.next_event_s(d.power, CONFIG, d.now_s) == d.now_s + CONFIG.settle_s
    d.advance(CONFIG.settle_s)
    later = site.next_event_s(d.power, CONFIG, d.now_s)
    assert later == pytest.approx(100.0 + CONFIG.lease_s / 3)


def test_a_cut_that_is_not_answered_is_sent_again_without_waiting_for_a_renewal() -> None:
    d = desk()
    d.settled({g("a"): 600_000, g("b"): 600_000})
    cut = BudgetOrder("s", 1_000_000, d.now_s, sequence=1)
    d.power = site.absorb(d.power, Observation(budget_orders=(cut,)), d.config, d.now_s)
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
    cut = BudgetOrder("t", 900_000, one.now_s, sequence=1)
    for d in (one, other):
        d.power = site.absorb(d.power, Observation(budget_orders=(cut,)), d.config, d.now_s)
        d.advance()
    assert sum(one.power.nodes[A].caps_mw or ()) == 2 * HIGH
    assert sum(other.power.nodes[B].caps_mw or ()) == 900_000


def test_a_clock_that_is_set_back_delays_neither_renewals_nor_what_settles() -> None:
    d = desk()
    d.settled({g("a"): 600_000, g("b"): 600_000})
    d.want({g("a"): 300_000, g("b"): 600_000})
    d.take(*(answer(order, d.now_s) for order in d.advance().values()))
    d.now_s -= 3600.0
    d.hear(*d.reports())
    assert set(d.advance()) == {"a", "b"}
    assert d.power.nodes[A].total_mw > sum(d.power.nodes[A].charge_mw), "held anew"
    d.advance(CONFIG.settle_s)
    assert d.power.nodes[A].total_mw == sum(d.power.nodes[A].charge_mw) == 300_000 + LOW


def test_a_budget_to_come_that_nothing_can_meet_is_said_and_freezes_nothing() -> None:
    d = desk()
    d.settled({g("a"): 600_000})
    ahead = BudgetOrder("s", 500_000, d.now_s + 3600.0, sequence=1)
    d.power = site.absorb(d.power, Observation(budget_orders=(ahead,)), d.config, d.now_s)
    d.want({g("a"): 700_000})
    assert d.advance()["a"].raises
    assert any("300 W" in note.sentence for note in site.summary(d.power, d.config, d.now_s).notes)
