"""A simulated node agent around the real agent core: reads and writes simulated cards, acknowledges and reports."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from agent.core import caps
from agent.core.caps import Acceptance, AgentState, CapDecision, GpuTarget, Health, LimitReading, WriteResult
from agent.core.ownership import OWNERS_FIRST_S
from deploy.fault_simulation.hardware import Card, HeldBy
from deploy.fault_simulation.scenario import DEPLOYMENT
from deploy.fault_simulation.simulated_bus import NodeReport, SimulatedMessage
from deploy.fault_simulation.simulated_site import SimulatedProcess, SimulatedSite
from planner.domain.ids import GpuId, NodeId
from planner.domain.observation import GpuCapInForce, GpuObservation, PowerAckSeen

_USABLE = (Health.OK, Health.UNKNOWN)
IDLE_MW = 60_000
"""What a GPU draws that no pod holds."""


class AgentProcess(SimulatedProcess):
    """One node: its cards, its machine boot, and the agent process that runs on it."""

    def __init__(
        self,
        index: int,
        cards: list[Card],
        site: SimulatedSite,
        rng: Random,
    ) -> None:
        super().__init__(f"node-{index}", index, site, rng, rate=1.0 + site.scenario.skews[index])
        self.node = NodeId(self.name)
        self.cards = cards
        self.machine_boot = 0
        self.powered = True
        self.reports: Callable[[str, object], None] = lambda kind, message: None
        self.state: AgentState = caps.initial("none", 0.0)
        self.results: list[WriteResult] = []
        self.busy = False
        self.again = False
        self.deadman_s = -1.0
        self._seen: dict[GpuId, tuple[LimitReading, HeldBy | None, GpuObservation]] = {}
        self.owners_known = True
        """Whether this process has ever read which pods there are."""
        self.labelled: set[str] = set()
        """Pods of which this process has read the labels: it keeps them for a pod that the API server has lost."""

    def start(self) -> None:
        """A new process: read and adopt what is enforced, report it, then consume."""
        super().start()
        self.busy = self.again = False
        self.results = []
        self.deadman_s = -1.0
        self._seen, self.labelled, self.owners_known = {}, set(), False
        self.began_s = self.clock_s
        boot = f"{self.name}.{self.machine_boot}/{self.generation}"
        self.state = caps.initial(boot, self.clock_s, grace_s=self.scenario.config.lease_s)
        self.state = caps.observed(self.state, self.readings(), self.clock_s)
        self.timeline.after(self.rng.uniform(0.0, 0.2), self.telemetry, self.generation)
        self.timeline.after(self.rng.uniform(0.0, 1.0), self.reconcile, self.generation)

    def power_off(self) -> None:
        """Switch off the whole machine."""
        self.crash()
        self.powered = False
        for card in self.cards:
            card.power_off()

    def power_on(self) -> None:
        """Switch the machine on: every limit is at its default, and its clock starts anew."""
        self.machine_boot += 1
        self.powered = True
        self.offset_s = self.rng.uniform(0.0, 1000.0) - self.timeline.now_s * self.rate
        for card in self.cards:
            card.resets += 1
            card.disturb(card.default_mw, self.timeline.now_s)
        self.start()

    def readings(self) -> dict[str, LimitReading]:
        """Readings of all cards by GPU, as the driver reports them."""
        return {card.gpu: card.read() for card in self.cards}

    def telemetry(self, generation: object) -> None:
        """Publish a report, and fetch a decision that is newer than ours or whose acknowledgement was lost."""
        if generation != self.generation or not self.awake(self.telemetry, generation):
            return
        self.timeline.after(self.scenario.telemetry_s, self.telemetry, generation)
        self.owners_known = self.owners_known or not self.api.away(self.timeline.now_s)
        if self._reportable():
            gpus = {card.gpu: self._observation(card) for card in self.cards}
            report = NodeReport(self.name, gpus, self.state.boot, self.clock_s, self.timeline.now_s)
            self.network.send(self, self.store_telemetry, report)
        self.network.send(self, self.ask_decision, (generation, self.state.decision_id, self.state.incarnation))

    def _reportable(self) -> bool:
        """As the product's agent: no report before its pods could be read, unless no planner knows the node."""
        new = self.name not in self.bus.acks and self.state.decision_id < 0
        return self.owners_known or (new and self.clock_s - self.began_s >= OWNERS_FIRST_S)

    def _observation(self, card: Card) -> GpuObservation:
        reading = card.read()
        known = self._seen.get(card.gpu)
        pod = card.pod if self.owners_known else None
        if known is not None and known[0] is reading and known[1] is pod:
            return known[2]
        draw = None if reading.enforced_mw is None else int(reading.enforced_mw * 0.8)
        if draw is not None and self.scenario.phases and card.pod is None:
            draw = IDLE_MW
        if pod is not None and not pod.forced:
            self.labelled.add(pod.name)
        ours = pod is not None and pod.pool is not None and pod.name in self.labelled
        seen = GpuObservation(
            card.gpu,
            draw,
            reading.requested_mw,
            reading.enforced_mw,
            reading.default_mw,
            reading.min_mw,
            reading.max_mw,
            healthy=reading.health in _USABLE,
            deployment=DEPLOYMENT if ours else None,
            pool=pod.pool if pod is not None and ours else None,
            worker=pod.name if pod is not None else None,
            terminating=pod is not None and pod.terminating,
        )
        self._seen[card.gpu] = (reading, pod, seen)
        return seen

    def store_telemetry(self, report: NodeReport) -> None:
        """At the bus."""
        self.bus.telemetry[self.name] = report
        self.reports("telemetry", report)

    def ask_decision(self, message: tuple[int, int, str]) -> None:
        """At the bus: the consumer redelivers the last decision until its acknowledgement is stored."""
        generation, known_id, incarnation = message
        kept = self.bus.decisions.get(self.name)
        if kept is None:
            return
        last = kept[-1]
        ack = self.bus.acks.get(self.name)
        known = last.order.decision_id == known_id and last.incarnation == incarnation
        if not known or ack is None or ack.decision_id < known_id:
            self.network.send(self, self.on_decision, (generation, last))

    def on_decision(self, message: tuple[int, SimulatedMessage]) -> None:
        """Handle a decision, which may be late, repeated, or very old."""
        generation, stored = message
        if generation != self.generation or not self.awake(self.on_decision, message):
            return
        order = stored.order
        targets = tuple([GpuTarget(cap.gpu, cap.setpoint, cap.fallback_mw) for cap in order.caps])
        decision = CapDecision(
            stored.epoch,
            order.decision_id,
            stored.incarnation,
            order.valid_for_s,
            targets,
            order.heard_boot,
            order.heard_clock_s,
            order.only_lowers,
            order.released,
        )
        self.state, verdict = caps.receive(self.state, decision, self.clock_s)
        self.counts[f"decision {verdict.value.replace('_', ' ')}"] += 1
        if verdict is Acceptance.ACCEPTED:
            self.work()
        elif verdict is Acceptance.REPEATED:
            self.answer()
        else:
            self.answer("rejected")

    def reconcile(self, generation: object) -> None:
        """Compare limits with the decision, at a fixed interval."""
        if generation != self.generation or not self.awake(self.reconcile, generation):
            return
        self.timeline.after(self.scenario.reconcile_s, self.reconcile, generation)
        self.work()

    def deadman(self, generation: object) -> None:
        """Act on the end of the lease, if it has been reached."""
        if generation != self.generation or not self.awake(self.deadman, generation):
            return
        self.deadman_s = -1.0
        ends_s = caps.deadline_s(self.state)
        if ends_s is not None and self.clock_s >= ends_s:
            self.counts["lease ran out"] += 1
            self.work()
        else:
            self._arm()

    def _arm(self) -> None:
        ends_s = caps.deadline_s(self.state)
        if ends_s is None:
            return
        at_s = max(self.timeline.now_s, (ends_s - self.offset_s) / self.rate) + 1e-6
        if self.deadman_s < 0 or at_s < self.deadman_s:
            self.deadman_s = at_s
            self.timeline.at(at_s, self.deadman, self.generation)

    def work(self) -> None:
        """Write what differs, one card at a time, then read back and acknowledge."""
        if self.busy:
            self.again = True
            return
        self.busy = True
        self.results = []
        self._next_write()

    def _next_write(self) -> None:
        acts = caps.actions(self.state, self.readings(), self.clock_s)
        done = {result.gpu for result in self.results}
        if any(act.gpu not in done for act in acts):
            self.timeline.after(self.rng.uniform(0.002, 0.04), self.write, self.generation)
        else:
            self._finish()

    def write(self, generation: object) -> None:
        """One write. What to write is computed again right before it: a lease may have ended since."""
        if generation != self.generation or not self.awake(self.write, generation):
            return
        done = {result.gpu for result in self.results}
        acts = caps.actions(self.state, self.readings(), self.clock_s)
        act = next((act for act in acts if act.gpu not in done), None)
        if act is not None:
            card = next(card for card in self.cards if card.gpu == act.gpu)
            self.results.append(WriteResult(act.gpu, act.mw, card.write(act.mw)))
            self.counts["limit written"] += 1
        self._next_write()

    def _finish(self) -> None:
        self.busy = False
        self.state = caps.observed(self.state, self.readings(), self.clock_s, self.results)
        self.results = []
        self._arm()
        self.answer()
        if self.again:
            self.again = False
            self.work()

    def answer(self, status: str = "") -> None:
        """Acknowledge what is in force. If this is not stored at the bus, the decision is redelivered."""
        if self.state.decision_id < 0:
            return
        report = caps.report(self.state, self.readings(), self.clock_s)
        gpus = tuple(
            [
                GpuCapInForce(GpuId(g.gpu), g.requested_mw, g.enforced_mw, g.health in _USABLE, g.reset)
                for g in report.gpus
            ]
        )
        ack = PowerAckSeen(
            self.node,
            report.epoch,
            report.decision_id,
            report.applied_id,
            status or report.status,
            gpus,
            boot=self.state.boot,
            clock_s=self.clock_s,
            incarnation=self.state.incarnation,
        )
        self.network.send(self, self.store_ack, ack)

    def store_ack(self, ack: PowerAckSeen) -> None:
        """At the bus."""
        self.bus.acks[self.name] = ack
        self.reports("ack", ack)
