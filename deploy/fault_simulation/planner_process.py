"""A simulated planner process around the real ledger: leadership, inbox, ticks, publishing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

from deploy.fault_simulation.checker import IssuedCommand
from deploy.fault_simulation.scenario import DECODE, DEPLOYMENT, PREFILL, SITE, planner_config
from deploy.fault_simulation.simulated_bus import FIRST, Batch, NodeReport, SimulatedBus, SimulatedMessage
from deploy.fault_simulation.simulated_site import SimulatedProcess, SimulatedSite
from planner.core import leavers
from planner.core.leavers import NONE_DRAINED
from planner.core.power import invariants, site_ledger
from planner.core.power.incarnation import FOREIGN_EPOCH, refuses
from planner.core.power.reservations import reserve_power
from planner.core.power.site_state import PowerState
from planner.core.publishable import Aim, publish
from planner.core.state import DeploymentState, Flow, Learned, PlannerState, PoolGoal, PoolState, Starts
from planner.domain.ids import GpuId, NodeId, PoolId
from planner.domain.observation import (
    BudgetCommand,
    HoldCommand,
    NodeCommand,
    NodeObservation,
    Observation,
    PowerAckSeen,
    StoredCaps,
)
from planner.domain.plan import PowerDecision, ScalingDecision
from planner.domain.units import GpuSetpoint, Milliwatts

TICK_S = 0.5
REACT_S = 0.01

Snapshot = tuple[int, int, list[SimulatedMessage], list[PowerAckSeen], list[NodeReport], Flow]


def _flow(bus: SimulatedBus, *, phases: bool) -> Flow:
    """The deployment's last decision, and how far it was carried out, as a new leader reads them."""
    last = bus.scaling
    if last is None:
        return Flow()
    starts = Starts(dict(last.at_most), dict(last.kept))
    drained = bus.drained_id if phases else None
    return Flow(last.decision_id, dict(last.replicas), bus.scaled_id, drained_decision_id=drained, starts=starts)


class PlannerProcess(SimulatedProcess):
    """One candidate for leadership. ``state`` is None while it does not lead, as far as it knows."""

    def __init__(
        self,
        index: int,
        site: SimulatedSite,
        rng: Random,
        broken: Callable[[str], None],
    ) -> None:
        super().__init__(f"planner-{index}", index, site, rng)
        self.config = site.scenario.config
        self.broken = broken
        self.strict = True
        self.steady = False
        """Wants no longer change."""
        self.planner_config = planner_config(site.scenario)
        self._forget()

    def _forget(self) -> None:
        self.state: PowerState | None = None
        self.epoch = -1
        self.led_since_s = float("inf")
        self.renewed_s = -100.0
        self.nodes: dict[NodeId, NodeObservation] = {}
        self.acks: list[PowerAckSeen] = []
        self.commands: dict[int, BudgetCommand] = {}
        self.node_commands: tuple[NodeCommand, ...] = ()
        self.hold_commands: tuple[HoldCommand, ...] = ()
        self.holds_read = 0
        self.pool_wants: Mapping[GpuId, GpuSetpoint] = {}
        self.incarnations: dict[str, str] = {}
        self.life = -1
        self.reacting = False
        self.wanted_s = -100.0
        self.steps = 0
        self.deployment = DeploymentState()
        """Where replicas come and go: their counts and caps, and what was published of them."""

    def start(self) -> None:
        """Start a new process, which knows only what is on the bus."""
        self._forget()
        super().start()
        self.timeline.after(self.rng.uniform(0.0, TICK_S), self.tick, self.generation)

    def crash(self) -> None:
        """End without notice, losing all state."""
        self._forget()
        super().crash()

    def tick(self, generation: object) -> None:
        """Twice a second: renew the lease, read commands, make one step."""
        if generation != self.generation or not self.awake(self.tick, generation):
            return
        self.timeline.after(TICK_S, self.tick, generation)
        now_s = self.timeline.now_s
        due_s = self.scenario.leader_ttl_s / 4.0 if self.state is not None else 1.0
        if now_s - self.renewed_s >= due_s:
            self.renewed_s = now_s
            self.network.send(self, self.ask_lease, generation)
        if self.state is not None:
            self.network.send(self, self.ask_control, generation)
            self.step()

    def ask_lease(self, generation: object) -> None:
        """At the bus: take or renew the lease; the answer goes back with what a new leader must read."""
        bus, now_s = self.bus, self.timeline.now_s
        sequence = bus.lead(self.index, self.scenario.leader_ttl_s, now_s)
        if sequence is not None:
            bus.forget(now_s)
            last = [kept[-1] for kept in bus.decisions.values()]
            flow = _flow(bus, phases=self.scenario.phases)
            snapshot = (sequence, bus.term_sequence, last, list(bus.acks.values()), list(bus.telemetry.values()), flow)
            self.network.send(self, self.on_lease, (generation, snapshot))

    def on_lease(self, answer: tuple[int, Snapshot]) -> None:
        """Leadership is ours: a new leader rebuilds its ledger from the streams, a sitting one notes the sequence."""
        generation, (sequence, term, decisions, acks, reports, flow) = answer
        if generation != self.generation or not self.awake(self.on_lease, answer):
            return
        if sequence <= self.epoch:
            return
        if self.state is not None and self.epoch >= term:
            self.epoch = sequence
            return
        self._forget()  # another one led meanwhile: the state here is outdated
        if sequence != self.bus.lease_sequence:
            return  # an old answer: another one has led since, so the snapshot is outdated
        self.epoch = sequence
        self.led_since_s = self.timeline.now_s
        stored = tuple(self._stored(each) for each in decisions)
        old, self.life = bool(self.bus.unmarked), self.bus.life
        self.incarnations = {each.order.node: self._fresh() if old else each.incarnation for each in decisions}
        self.state = site_ledger.initial(self.config, sequence, self.clock_s, stored, doubted=old)
        self.deployment = DeploymentState(flow)
        self.acks = list(acks)
        for report in reports:
            self.on_telemetry((self.generation, report))
        self.control()

    def _stored(self, stored: SimulatedMessage) -> StoredCaps:
        last = stored.order
        setpoints = {cap.gpu: cap.setpoint for cap in last.caps}
        charged = {cap.gpu: cap.charged_mw or cap.setpoint.cap_mw for cap in last.caps}
        highest = {cap.gpu: cap.highest_mw for cap in last.caps if cap.highest_mw is not None}
        outside = frozenset([cap.gpu for cap in last.caps if cap.outside])
        at_s = self.local_s(stored.stored_s)
        return StoredCaps(last.node, last.decision_id, setpoints, charged, at_s, highest, outside)

    def _fresh(self) -> str:
        """An incarnation that was never used."""
        self.counts["ids counted anew"] += 1
        return f"{self.name}-{self.rng.getrandbits(48):x}"

    def _read(self, ack: PowerAckSeen) -> PowerAckSeen:
        """As the planner's inbox reads an answer, and its publisher acts on it."""
        known = self.incarnations.get(ack.node, FIRST)
        read = ack if ack.incarnation in {"", known} else replace(ack, epoch=FOREIGN_EPOCH)
        if self.state is not None and refuses(read, self.state.epoch, known):
            self.incarnations[ack.node] = self._fresh()
        return read

    def local_s(self, true_s: float) -> float:
        """An instant of true time on this clock, as an adapter translates it now."""
        return self.clock_s + (true_s - self.timeline.now_s)

    def ask_control(self, generation: object) -> None:
        """At the bus: read control messages. A long poll; its answer is as old as its way back."""
        self.network.send(self, self.on_control, generation)
        if self.scenario.workers:
            done = (self.bus.scaled_id, self.bus.drained_id)
            self.network.send(self, self.on_scaled, (generation, self.bus.life, done))

    def on_control(self, generation: object) -> None:
        """Handle arrived control messages."""
        if generation == self.generation and self.awake(self.on_control, generation):
            self.control()

    def on_scaled(self, message: tuple[object, int, tuple[int, int]]) -> None:
        """Handle the connector's acknowledgement."""
        generation, life, (scaled_id, drained_id) = message
        if generation != self.generation or life != self.life:
            return
        flow = self.deployment.flow
        flow = replace(flow, scaled_decision_id=max(scaled_id, flow.scaled_decision_id))
        if self.scenario.phases:
            drained = NONE_DRAINED if flow.drained_decision_id is None else flow.drained_decision_id
            flow = replace(flow, drained_decision_id=max(drained_id, drained))
        self.deployment = replace(self.deployment, flow=flow)

    def control(self) -> None:
        """Read all budget and node commands; react to a new budget at once."""
        if self.state is None:
            return
        fresh = [(seq, command) for seq, command in self.bus.budget_commands if seq not in self.commands]
        for sequence, command in fresh:
            self.commands[sequence] = self._command(sequence, command)
        rows = self.bus.node_commands
        if len(rows) != len(self.node_commands):
            self.node_commands = tuple(replace(o, sequence=seq, issued_s=self.local_s(at)) for seq, at, o in rows)
        holds = self.bus.hold_commands[self.holds_read :]
        self.holds_read += len(holds)
        self.hold_commands += tuple([replace(o, sequence=seq, issued_s=self.local_s(at)) for seq, at, o in holds])
        if fresh or holds:
            self.react()

    def _command(self, sequence: int, command: IssuedCommand) -> BudgetCommand:
        until_s = None if command.until_s is None else self.local_s(command.until_s)
        return BudgetCommand(SITE, command.budget_mw, self.local_s(command.from_s), until_s, command.ramp_s, sequence)

    def on_telemetry(self, message: tuple[int, NodeReport]) -> None:
        """Handle a node's report."""
        generation, report = message
        if generation != self.generation or not self.awake(self.on_telemetry, message):
            return
        age_s = self.timeline.now_s - report.made_s
        node = NodeId(report.node)
        self.nodes[node] = NodeObservation(node, report.gpus, age_s, report.boot, report.clock_s)

    def on_ack(self, message: tuple[int, PowerAckSeen]) -> None:
        """Handle a node's acknowledgement."""
        generation, ack = message
        if generation != self.generation or not self.awake(self.on_ack, message):
            return
        if self.state is not None:
            self.acks.append(ack)
            self.react()

    def react(self) -> None:
        """Schedule one step for everything that arrives until then."""
        if not self.reacting:
            self.reacting = True
            self.timeline.after(REACT_S, self.on_react, self.generation)

    def on_react(self, generation: object) -> None:
        """Step between ticks: acknowledgements and budget commands do not wait for the next tick."""
        if generation != self.generation or not self.awake(self.on_react, generation):
            return
        self.reacting = False
        if self.state is not None:
            self.step()

    def step(self) -> None:
        """Absorb, want, advance, publish: the real ledger."""
        state = self.state
        if state is None:
            return
        now_s = self.clock_s
        nodes: Mapping[NodeId, NodeObservation] = self.nodes
        if self.scenario.workers:
            nodes = leavers.observed(nodes, state, self.planner_config, {DEPLOYMENT: self.deployment}, now_s)
        seen = Observation(
            nodes=nodes,
            power_acks=tuple([self._read(ack) for ack in self.acks]),
            budget_commands=tuple(self.commands.values()),
            node_commands=self.node_commands,
            hold_commands=self.hold_commands,
        )
        self.nodes, self.acks, self.hold_commands = {}, [], ()
        state = site_ledger.absorb(state, seen, self.config, now_s)
        if self.scenario.workers:
            self._step_workers(state, now_s)
            return
        if self.steady and state.wants is not None:
            state = self._wanting(state, dict(self.pool_wants), now_s)
        elif now_s - self.wanted_s >= self.scenario.want_every_s:
            self.wanted_s = now_s
            self.pool_wants = self._wishes(state)
            state = self._wanting(state, self.pool_wants, now_s)
        elif state.wants is not None and (state.holds or state.hold_outcomes):
            state = self._wanting(state, self.pool_wants, now_s)
        after, decisions = site_ledger.advance(state, self.config, now_s)
        self._decided(state, after, decisions, now_s)

    def _wanting(self, state: PowerState, pools: Mapping[GpuId, GpuSetpoint], now_s: float) -> PowerState:
        """The ledger with what pools want, and with the holds that the real core grants beside it."""
        state = site_ledger.want_with_holds(state, pools, self.config, now_s)
        for outcome in state.hold_outcomes.values():
            self.counts[outcome.reason.replace("_", " ")] += 1
        return state

    def _step_workers(self, power: PowerState, now_s: float) -> None:
        """The same where replicas come and go: the real reservations and the real gate before publishing."""
        clock = self.planner_config.clock(now_s)
        due = not self.steady and now_s - self.wanted_s >= self.scenario.want_every_s
        if due or not self.deployment.pending.goals:
            self.wanted_s = now_s
            pending = replace(self.deployment.pending, goals=self._goals())
            self.deployment = replace(self.deployment, pending=pending)
        learned = Learned(pools=dict.fromkeys((PREFILL, DECODE), PoolState()))
        known = PlannerState(power.epoch, 0.0, {DEPLOYMENT: replace(self.deployment, learned=learned)}, {SITE: power})
        reserved = reserve_power(known, self.planner_config, clock)
        pending = reserved.state.deployments[DEPLOYMENT].pending
        aims = {}
        if pending.goals:
            current = {pool: self.deployment.flow.published.get(pool, 0) for pool in pending.goals}
            goal = {pool: wanted.replicas for pool, wanted in pending.goals.items()}
            aims[DEPLOYMENT] = Aim(self.planner_config.deployments[DEPLOYMENT], current, goal)
        published = publish(reserved, aims, clock)
        self.deployment = published.state.deployments[DEPLOYMENT]
        self.counts["scaling decision"] += len(published.scaling)
        self._decided(power, published.state.power[SITE], reserved.power, now_s, published.scaling)

    def _goals(self) -> dict[PoolId, PoolGoal]:
        """A random optimiser: how many replicas of each pool, and at which caps."""
        scenario, rng = self.scenario, self.rng
        low, high = scenario.min_mw, scenario.default_mw
        counts = {PREFILL: rng.randrange(0, scenario.gpus // 4 + 1), DECODE: rng.randrange(0, scenario.gpus // 2 + 1)}
        gpus = max(1, 2 * counts[PREFILL] + counts[DECODE])
        each = (self.config.budget_mw - scenario.overhead_mw) // gpus
        free = [min(high, max(low, int(each * rng.uniform(0.5, 1.4)))) for _ in counts]
        caps = scenario.fixed_mw or free
        return {
            pool: PoolGoal(count, GpuSetpoint(Milliwatts(cap)), 1.0)
            for (pool, count), cap in zip(counts.items(), caps, strict=True)
        }

    def _decided(
        self,
        state: PowerState,
        after: PowerState,
        decisions: tuple[PowerDecision, ...],
        now_s: float,
        scaling: tuple[ScalingDecision, ...] = (),
    ) -> None:
        """Inspect what was decided, and publish it as one batch."""
        self.steps += 1
        if self.strict and decisions:
            self._inspect(state, after, decisions, now_s)
        self.state = after
        if decisions or scaling:
            self.counts["decision"] += len(decisions)
            batch = Batch(self.epoch, after.epoch, self.life, decisions, dict(self.incarnations), scaling)
            self.network.send(self, self.at_bus, (self.generation, batch))

    def _inspect(
        self, before: PowerState, after: PowerState, decisions: tuple[PowerDecision, ...], now_s: float
    ) -> None:
        found = [*invariants.step_taken(before, after, decisions, self.config, now_s)]
        if self.steps % 8 == 0:
            found += invariants.wrong_charges(after.nodes.values())
        if found:
            self.broken(f"{found[0].name}: {found[0].sentence}")

    def _wishes(self, state: PowerState) -> dict[GpuId, GpuSetpoint]:
        """A random optimiser: some GPUs serve, at any caps or at their pool's, at times for more than the budget."""
        low, high = self.scenario.min_mw, self.scenario.default_mw
        rng = self.rng
        gpus = [gpu for gpu in state.where if rng.random() < 0.8]
        if (fixed := self.scenario.fixed_mw) is not None:
            self.counts["fixed caps wanted"] += 1
            return {gpu: GpuSetpoint(Milliwatts(rng.choice(fixed))) for gpu in gpus}
        self.counts["any caps wanted"] += 1
        room = self.config.budget_mw - self.scenario.overhead_mw - len(state.where) * low
        weights = [rng.random() ** 2 for _ in gpus]
        total = sum(weights) or 1.0
        boldness = rng.choice((0.8, 1.5, 3.0, 6.0))
        return {
            gpu: GpuSetpoint(Milliwatts(min(high, low + int(room * boldness * weight / total))))
            for gpu, weight in zip(gpus, weights, strict=True)
        }

    def at_bus(self, message: tuple[int, Batch]) -> None:
        """At the bus: a fenced batch. A refusal goes back."""
        generation, batch = message
        if self.bus.publish(batch, self.timeline.now_s):
            self.delivered(batch.orders, batch.epoch)
        else:
            holder, sequence = self.bus.lease_holder, self.bus.lease_sequence
            self.network.send(self, self.on_fenced, (generation, batch, holder, sequence))

    def delivered(self, decisions: tuple[PowerDecision, ...], epoch: int) -> None:
        """Replaced by the world: carries stored decisions to their nodes."""

    def on_fenced(self, message: tuple[int, Batch, int, int]) -> None:
        """The bus refused: either our own renewal overtook the batch, or another one leads."""
        generation, batch, holder, sequence = message
        if generation != self.generation or not self.awake(self.on_fenced, message):
            return
        if self.state is None:
            return
        if holder == self.index:
            if sequence > batch.fence and batch.epoch == self.state.epoch:
                self.epoch = max(self.epoch, sequence)
                self.network.send(self, self.at_bus, (generation, replace(batch, fence=self.epoch)))
            return
        if sequence > self.epoch:
            self.counts["leader deposed"] += 1
            self._forget()
