"""The simulated bus: subjects with their last messages, one leadership lease, and fenced atomic batches."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache

from bus_schemas import streams
from bus_schemas.standing_lease import SLACK_S
from bus_schemas.subjects import Subjects
from deploy.fault_simulation.checker import IssuedCommand
from planner.domain.ids import GpuId
from planner.domain.observation import GpuObservation, HoldCommand, NodeCommand, PowerAckSeen
from planner.domain.plan import PowerDecision, ScalingDecision

KEPT = 24
JUNK = -2
"""The holder of a lease that no planner wrote."""
FIRST = "0"
"""The incarnation under which a node's ids are counted at first."""
WEEK_S = 7 * 86_400.0
SHORT_WEEK_S = 60.0
"""A week of silence on this bus: what the product's streams keep for a week is gone here after this time."""
SHORTEST_AGE_S = 20.0


@cache
def _age_s(stream: str) -> float:
    """For how long this bus keeps what the product's stream keeps for days."""
    kept_s = next(spec.max_age_s for spec in streams.stream_specs(Subjects()) if spec.name == stream)
    return max(SHORTEST_AGE_S, kept_s * SHORT_WEEK_S / WEEK_S) if kept_s else float("inf")


@dataclass(frozen=True, slots=True)
class BusCopy:
    """What a copy of the bus holds: the last of each subject, and the lease's sequence."""

    made_s: float
    sequence: int
    decisions: dict[str, SimulatedMessage]
    acks: dict[str, PowerAckSeen]
    scaling: tuple[ScalingDecision | None, int]


@dataclass(frozen=True, slots=True)
class SimulatedMessage:
    """A decision as stored on its subject."""

    order: PowerDecision
    epoch: int
    stored_s: float
    incarnation: str = FIRST


@dataclass(frozen=True, slots=True)
class NodeReport:
    """Telemetry of one node, made at ``made_s`` in true time."""

    node: str
    gpus: dict[GpuId, GpuObservation]
    boot: str
    clock_s: float
    made_s: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Decisions on their way to the bus: under which lease message, of which term, in which life of the bus."""

    fence: int
    epoch: int
    life: int
    orders: tuple[PowerDecision, ...]
    incarnations: dict[str, str]
    scaling: tuple[ScalingDecision, ...] = ()


@dataclass(slots=True)
class SimulatedBus:
    """Streams as the only source of truth. ``fencing`` off is one of the mutations."""

    counts: Counter[str]
    fencing: bool = True
    lease_holder: int = -1
    lease_sequence: int = 0
    lease_until_s: float = -1.0
    term_sequence: int = 0
    """The sequence with which the present holder took over; state from below it is not continuous."""
    decisions: dict[str, list[SimulatedMessage]] = field(default_factory=dict)
    acks: dict[str, PowerAckSeen] = field(default_factory=dict)
    telemetry: dict[str, NodeReport] = field(default_factory=dict)
    scaling: ScalingDecision | None = None
    """The last one of the deployment; ``scaled_id``: how far its connector came."""
    scaling_life: int = 0
    """The life in which it was stored: a connector does not go back to an older one that a copy brings back."""
    scaled_id: int = -1
    drained_id: int = -1
    """The newest decision after which nothing is left to drain, where the connector reports that."""
    budget_commands: list[tuple[int, IssuedCommand]] = field(default_factory=list)
    node_commands: list[tuple[int, float, NodeCommand]] = field(default_factory=list)
    hold_commands: list[tuple[int, float, HoldCommand]] = field(default_factory=list)
    """Holds of profilers, with when each was written: renewals and releases are messages of their own."""
    budget_sequence: int = 0
    life: int = 0
    """How often the bus was put back: what was sent in an earlier life never arrives."""
    copied: BusCopy | None = None
    unmarked: frozenset[str] = frozenset()
    """Nodes whose last decision is the copy's: while any is left, the next leader cannot see that it is a copy."""

    def copy(self, now_s: float) -> None:
        """As a backup does. Control messages are another stream and not part of it."""
        last = {node: kept[-1] for node, kept in self.decisions.items()}
        self.copied = BusCopy(now_s, self.lease_sequence, last, dict(self.acks), (self.scaling, self.scaling_life))

    def put_back(self, *, acks: bool) -> None:
        """The copy takes the place of what is there; answers too, or decisions alone. Telemetry is in memory."""
        copy = self.copied
        if copy is None:
            return
        self.decisions = {node: [last] for node, last in copy.decisions.items()}
        self.acks = dict(copy.acks) if acks else self.acks
        self.telemetry = {}
        (self.scaling, self.scaling_life), self.scaled_id = copy.scaling, -1
        self.drained_id = -1
        self.lease_sequence = copy.sequence
        self.lease_holder, self.lease_until_s = -1, -1.0
        self.life += 1
        self.unmarked, self.copied = frozenset(copy.decisions), None

    def forget(self, now_s: float) -> None:
        """What the product's streams let age away."""
        decisions_s, telemetry_s = _age_s(streams.DECISIONS), _age_s(streams.TELEMETRY)
        self.decisions = {n: kept for n, kept in self.decisions.items() if now_s - kept[-1].stored_s <= decisions_s}
        self.telemetry = {n: each for n, each in self.telemetry.items() if now_s - each.made_s <= telemetry_s}

    def issue_budget(self, command: IssuedCommand) -> None:
        """Store an operator's command; the stream keeps as many as can still matter."""
        self.budget_sequence += 1
        self.budget_commands.append((self.budget_sequence, command))
        del self.budget_commands[:-40]

    def lead(self, planner: int, ttl_s: float, now_s: float) -> int | None:
        """Take the lease, or renew it: its new sequence, or None while another planner holds it.

        An expired lease is gone: taking it again begins a new term, also for its former holder. Junk is overwritten.
        """
        expired = now_s >= self.lease_until_s
        if self.lease_holder != planner and not expired:
            return None
        if expired:
            self.counts["planner fail-over"] += self.lease_holder not in (-1, JUNK, planner)
            self.term_sequence = self.lease_sequence + 1
        self.lease_holder = planner
        self.lease_sequence += 1
        self.lease_until_s = now_s + ttl_s
        return self.lease_sequence

    def junk_lease(self, ttl_s: float, now_s: float) -> bool:
        """Store a message that is not a lease on the lease's subject: it deposes the leader, and planners overwrite it
        after a term.

        The server never removes it. Its age counts from its own storage, not from the lease that it took the place of.
        """
        if self.lease_holder == JUNK:
            return False
        self.lease_holder = JUNK
        self.lease_sequence += 1
        self.lease_until_s = now_s + ttl_s + SLACK_S
        return True

    def publish(self, batch: Batch, now_s: float) -> bool:
        """Store a batch, all of it or nothing; False where the lease's sequence is another one, or has expired."""
        if batch.life != self.life:
            return False
        if self.fencing and (batch.fence != self.lease_sequence or now_s >= self.lease_until_s):
            self.counts["batch fenced"] += 1
            return False
        for order in batch.orders:
            kept = self.decisions.setdefault(order.node, [])
            kept.append(SimulatedMessage(order, batch.epoch, now_s, batch.incarnations.get(order.node, FIRST)))
            del kept[:-KEPT]
        if batch.scaling:
            self.scaling, self.scaling_life = batch.scaling[-1], self.life
        self.unmarked -= {order.node for order in batch.orders}
        return True
