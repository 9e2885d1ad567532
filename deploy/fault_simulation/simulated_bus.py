"""The simulated bus: subjects with their last messages, one leadership lease, and fenced atomic batches."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from deploy.fault_simulation.checker import IssuedCommand
from planner.domain.ids import GpuId
from planner.domain.observation import GpuObservation, NodeCommand, PowerAckSeen
from planner.domain.plan import PowerDecision

KEPT = 24


@dataclass(frozen=True, slots=True)
class SimulatedMessage:
    """A decision as stored on its subject."""

    order: PowerDecision
    epoch: int
    stored_s: float


@dataclass(frozen=True, slots=True)
class NodeReport:
    """Telemetry of one node, made at ``made_s`` in true time."""

    node: str
    gpus: dict[GpuId, GpuObservation]
    boot: str
    clock_s: float
    made_s: float


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
    budget_commands: list[tuple[int, IssuedCommand]] = field(default_factory=list)
    node_commands: list[tuple[int, float, NodeCommand]] = field(default_factory=list)
    budget_sequence: int = 0

    def issue_budget(self, command: IssuedCommand) -> None:
        """Store an operator's command; the stream keeps as many as can still matter."""
        self.budget_sequence += 1
        self.budget_commands.append((self.budget_sequence, command))
        del self.budget_commands[:-40]

    def lead(self, planner: int, ttl_s: float, now_s: float) -> int | None:
        """Take the lease, or renew it: its new sequence, or None while another planner holds it.

        An expired lease is gone: taking it again begins a new term, also for its former holder.
        """
        expired = now_s >= self.lease_until_s
        if self.lease_holder != planner and not expired:
            return None
        if expired:
            self.counts["planner fail-over"] += self.lease_holder not in (-1, planner)
            self.term_sequence = self.lease_sequence + 1
        self.lease_holder = planner
        self.lease_sequence += 1
        self.lease_until_s = now_s + ttl_s
        return self.lease_sequence

    def publish(self, fence: int, epoch: int, batch: tuple[PowerDecision, ...], now_s: float) -> bool:
        """Store a batch, all of it or nothing; False where the lease's sequence is another one, or has expired."""
        if self.fencing and (fence != self.lease_sequence or now_s >= self.lease_until_s):
            self.counts["batch fenced"] += 1
            return False
        for decision in batch:
            kept = self.decisions.setdefault(decision.node, [])
            kept.append(SimulatedMessage(decision, epoch, now_s))
            del kept[:-KEPT]
        return True
