"""Ledger and agent core under any interleaving that Hypothesis can think of, with shrinking.

The same promise as `wattscale prove`, on a site small enough that a counter-example can be read: two nodes of two
cards, a bus that keeps every decision and every answer ever sent, and rules that deliver any of them at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.core import caps
from agent.core.caps import CapDecision, GpuTarget, Health, WriteResult
from deploy.fault_simulation.hardware import Card
from deploy.fault_simulation.mutations import mutated
from planner.core.power import invariants, site_ledger
from planner.core.power.site_state import PowerState
from planner.domain.config import SiteConfig
from planner.domain.ids import GpuId, NodeId, SiteId
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
from planner.domain.units import GpuSetpoint, Milliwatts
from tests.sizes_of_runs import examples

NODES, PER_NODE, HIGH, LOW = 2, 2, 700_000, 200_000
FULL = NODES * PER_NODE * HIGH
CONFIG = SiteConfig(
    SiteId("s"), budget_mw=Milliwatts(2_000_000), lease_s=9.0, settle_s=1.0, expected_gpus=NODES * PER_NODE
)
RISE_WINDOW_S = CONFIG.lease_s * 1.01 + 0.5


class LedgerNode:
    """One agent on the real core, without a network: the machine decides what it hears."""

    def __init__(self, name: str) -> None:
        self.name = NodeId(name)
        self.cards = [Card(GpuId(f"{name}-{n}"), 0, HIGH, LOW, LOW) for n in range(PER_NODE)]
        self.process = 0
        self.start(0.0)

    def start(self, now_s: float) -> None:
        self.process += 1
        self.state = caps.observed(
            caps.initial(f"{self.name}/{self.process}", now_s, grace_s=CONFIG.lease_s), self.readings(), now_s
        )

    def readings(self) -> dict[str, caps.LimitReading]:
        return {card.gpu: card.read() for card in self.cards}

    def work(self, now_s: float) -> None:
        results = []
        for act in caps.actions(self.state, self.readings(), now_s):
            card = next(card for card in self.cards if card.gpu == act.gpu)
            results.append(WriteResult(act.gpu, act.mw, card.write(act.mw)))
        self.state = caps.observed(self.state, self.readings(), now_s, results)

    def answer(self, now_s: float, *, rejected: bool = False) -> PowerAckSeen:
        report = caps.report(self.state, self.readings(), now_s)
        gpus = tuple(
            GpuCapInForce(GpuId(g.gpu), g.requested_mw, g.enforced_mw, g.health is Health.OK, g.reset)
            for g in report.gpus
        )
        status = "rejected" if rejected else report.status
        return PowerAckSeen(
            self.name,
            report.epoch,
            report.decision_id,
            report.applied_id,
            status,
            gpus,
            boot=self.state.boot,
            clock_s=now_s,
        )

    def telemetry(self, now_s: float) -> tuple[NodeObservation, float]:
        gpus = {
            card.gpu: GpuObservation(card.gpu, None, card.requested_mw, card.enforced_mw, HIGH, LOW, HIGH)
            for card in self.cards
        }
        return NodeObservation(self.name, gpus, 0.0, self.state.boot, now_s), now_s


class PowerMachine(RuleBasedStateMachine):
    """Everything ever sent may arrive at any time, any number of times, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0
        self.nodes = [LedgerNode(f"n{n}") for n in range(NODES)]
        self.decisions: list[list[tuple[PowerDecision, int]]] = [[] for _ in self.nodes]
        self.answers: list[PowerAckSeen] = []
        self.reports: list[tuple[NodeObservation, float]] = []
        self.epoch = 1
        self.budgets = [(float("-inf"), FULL), (self.now_s, CONFIG.budget_mw)]
        self.orders: tuple[BudgetCommand, ...] = ()
        self.sum_mw = FULL

    @initialize()
    def first_leader(self) -> None:
        self.power: PowerState = site_ledger.initial(CONFIG, self.epoch, self.now_s, ())
        for node in self.nodes:
            node.start(self.now_s)
            self.reports.append(node.telemetry(self.now_s))
        self._absorb(reports=self.reports)

    def _absorb(
        self,
        reports: Sequence[tuple[NodeObservation, float]] = (),
        acks: tuple[PowerAckSeen, ...] = (),
    ) -> None:
        nodes = {
            seen.node: NodeObservation(seen.node, seen.gpus, self.now_s - told_s, seen.boot, seen.clock_s)
            for seen, told_s in reports
        }
        seen = Observation(nodes=nodes, power_acks=acks, budget_commands=self.orders)
        self.power = site_ledger.absorb(self.power, seen, CONFIG, self.now_s)

    @rule(dt=st.sampled_from([0.05, 0.5, 1.1, 3.0, 10.0]))
    def time_passes(self, dt: float) -> None:
        """Agents are awake: their dead-man acts on time."""
        until_s = self.now_s + dt
        for node in self.nodes:
            ends_s = caps.deadline_s(node.state)
            if ends_s is not None and ends_s <= until_s:
                self.now_s = max(self.now_s, ends_s)
                node.work(self.now_s)
                self.rise()
        self.now_s = until_s

    @rule()
    def advance(self) -> None:
        after, orders = site_ledger.advance(self.power, CONFIG, self.now_s)
        found = invariants.step_taken(self.power, after, orders, CONFIG, self.now_s)
        assert not found, found
        self.power = after
        for order in orders:
            self.decisions[int(order.node[1:])].append((order, self.epoch))

    @rule(shares=st.lists(st.integers(0, 10), min_size=NODES * PER_NODE, max_size=NODES * PER_NODE))
    def want(self, shares: list[int]) -> None:
        gpus = [card.gpu for node in self.nodes for card in node.cards]
        step = (HIGH - LOW) // 10
        self.power = site_ledger.want(
            self.power, {g: GpuSetpoint(Milliwatts(LOW + step * s)) for g, s in zip(gpus, shares, strict=True) if s}
        )

    @rule(n=st.integers(0, NODES - 1), back=st.integers(0, 30))
    def deliver_decision(self, n: int, back: int) -> None:
        if not self.decisions[n]:
            return
        order, epoch = self.decisions[n][-1 - min(back, len(self.decisions[n]) - 1)]
        node = self.nodes[n]
        decision = CapDecision(
            epoch,
            order.decision_id,
            "1",
            order.valid_for_s,
            tuple(GpuTarget(c.gpu, c.setpoint, c.fallback_mw) for c in order.caps),
            order.heard_boot,
            order.heard_clock_s,
            order.only_lowers,
        )
        node.state, verdict = caps.receive(node.state, decision, self.now_s)
        node.work(self.now_s)
        refused = verdict in (caps.Acceptance.OLDER_EPOCH, caps.Acceptance.OLDER_ID)
        self.answers.append(node.answer(self.now_s, rejected=refused))

    @rule(back=st.integers(0, 30))
    def deliver_answer(self, back: int) -> None:
        if self.answers:
            self._absorb(acks=(self.answers[-1 - min(back, len(self.answers) - 1)],))

    @rule(n=st.integers(0, NODES - 1), deliver=st.booleans())
    def report(self, n: int, deliver: bool) -> None:
        self.reports.append(self.nodes[n].telemetry(self.now_s))
        if deliver:
            self._absorb(reports=[self.reports[-1]])

    @rule(back=st.integers(0, 20))
    def deliver_old_report(self, back: int) -> None:
        self._absorb(reports=[self.reports[-1 - min(back, len(self.reports) - 1)]])

    @rule(n=st.integers(0, NODES - 1))
    def reconcile(self, n: int) -> None:
        self.nodes[n].work(self.now_s)
        if self.nodes[n].state.decision_id >= 0:
            self.answers.append(self.nodes[n].answer(self.now_s))

    @rule(n=st.integers(0, NODES - 1))
    def agent_restarts(self, n: int) -> None:
        """A new process reads the last decision of its subject before anything else arrives."""
        self.nodes[n].start(self.now_s)
        if self.decisions[n]:
            self.deliver_decision(n, 0)

    @rule(n=st.integers(0, NODES - 1), card=st.integers(0, PER_NODE - 1), mw=st.sampled_from([LOW, 350_000, HIGH]))
    def someone_else_writes(self, n: int, card: int, mw: int) -> None:
        self.nodes[n].cards[card].disturb(mw, self.now_s)

    @rule(n=st.integers(0, NODES - 1), card=st.integers(0, PER_NODE - 1))
    def writes_stop_working(self, n: int, card: int) -> None:
        self.nodes[n].cards[card].ignores ^= True

    @rule(watts=st.integers(8, 28))
    def budget(self, watts: int) -> None:
        self.budgets.append((self.now_s, watts * 100_000))
        self.orders = (
            *self.orders,
            BudgetCommand("s", Milliwatts(watts * 100_000), self.now_s, None, 0.0, len(self.budgets)),
        )
        self._absorb()

    @rule()
    @precondition(lambda self: self.epoch < 6)
    def fail_over(self) -> None:
        """Another planner leads: what the old one has not published is gone, what it has is on the bus."""
        self.epoch += 1
        stored = [
            StoredCaps(
                kept[-1][0].node,
                kept[-1][0].decision_id,
                {c.gpu: c.setpoint for c in kept[-1][0].caps},
                {c.gpu: c.charged_mw or 0 for c in kept[-1][0].caps},
            )
            for kept in self.decisions
            if kept
        ]
        self.power = site_ledger.initial(CONFIG, self.epoch, self.now_s, stored)
        latest = {seen.node: (seen, told_s) for seen, told_s in self.reports}
        self._absorb(reports=list(latest.values()))

    @invariant()
    def rise(self) -> None:
        """Limits above the budget only fall; a rise ends within the largest budget of the last lease."""
        total = sum(card.counted_mw for node in self.nodes for card in node.cards)
        since_s = self.now_s - RISE_WINDOW_S
        spans = zip(self.budgets, [*(at_s for at_s, _ in self.budgets[1:]), float("inf")], strict=True)
        allowed = max(mw for (_, mw), until_s in spans if until_s > since_s)
        assert total <= max(allowed, self.sum_mw), f"{total} mW, {allowed} allowed, {self.sum_mw} before"
        self.sum_mw = total

    @invariant()
    def ledgers_add_up(self) -> None:
        if hasattr(self, "power"):
            assert not invariants.wrong_charges(self.power.nodes.values())


PowerMachine.TestCase.settings = settings(max_examples=examples(60, 150), stateful_step_count=60, deadline=None)
TestPower = PowerMachine.TestCase


@pytest.mark.parametrize(
    "mutation",
    [pytest.param("raise-before-lower", marks=pytest.mark.long), "ignore-unacked-grants", "default-on-expiry"],
)
def test_the_machine_can_fail(mutation: str) -> None:
    """A model that finds nothing wrong with a broken product would prove nothing."""
    quick = settings(max_examples=2000, stateful_step_count=60, deadline=None, phases=[Phase.generate], database=None)
    with mutated(mutation), pytest.raises(AssertionError):
        run_state_machine_as_test(PowerMachine, settings=quick)
