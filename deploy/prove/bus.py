"""The simulated bus: subjects with their last messages, one leadership lease, and fenced atomic batches."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from planner.domain.observation import NodeOrder, PowerAckSeen
from planner.domain.plan import PowerOrder

from deploy.prove.checker import Order

KEPT = 24


@dataclass(frozen=True, slots=True)
class Stored:
    """A decision on its subject."""

    order: PowerOrder
    epoch: int
    stored_s: float


@dataclass(frozen=True, slots=True)
class NodeReport:
    """Telemetry of one node, made at ``made_s`` in true time."""

    node: str
    gpus: dict
    boot: str
    clock_s: float
    made_s: float


@dataclass(slots=True)
class Bus:
    """Streams as the only source of truth. ``fencing`` off is one of the mutations."""

    counts: Counter[str]
    fencing: bool = True
    lease_holder: int = -1
    lease_sequence: int = 0
    lease_until_s: float = -1.0
    term_sequence: int = 0
    """The sequence with which the present holder took over: below it, nothing it knows is continuous."""
    decisions: dict[str, list[Stored]] = field(default_factory=dict)
    acks: dict[str, PowerAckSeen] = field(default_factory=dict)
    telemetry: dict[str, NodeReport] = field(default_factory=dict)
    budget_orders: list[tuple[int, Order]] = field(default_factory=list)
    node_orders: list[tuple[int, float, NodeOrder]] = field(default_factory=list)
    budget_sequence: int = 0

    def order_budget(self, order: Order) -> None:
        """An operator's word; the stream keeps as many as can still matter."""
        self.budget_sequence += 1
        self.budget_orders.append((self.budget_sequence, order))
        del self.budget_orders[:-40]

    def lead(self, planner: int, ttl_s: float, now_s: float) -> int | None:
        """Take the lease, or renew it: its new sequence, or None while another planner holds it."""
        if now_s < self.lease_until_s and self.lease_holder != planner:
            return None
        if self.lease_holder != planner:
            self.counts["planner fail-over"] += 1
            self.term_sequence = self.lease_sequence + 1
        self.lease_holder = planner
        self.lease_sequence += 1
        self.lease_until_s = now_s + ttl_s
        return self.lease_sequence

    def publish(self, epoch: int, batch: tuple[PowerOrder, ...], now_s: float) -> bool:
        """Store a batch, all of it or nothing; False where the lease's sequence is another one."""
        if self.fencing and epoch != self.lease_sequence:
            self.counts["batch fenced"] += 1
            return False
        for order in batch:
            kept = self.decisions.setdefault(order.node, [])
            kept.append(Stored(order, epoch, now_s))
            del kept[:-KEPT]
        return True
