"""A tiny world as one immutable value: a leader's ledger, nodes with their agents and cards, and messages in flight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from agent.core.caps import AgentState
from planner.core.power.site_state import PowerState
from planner.domain.ids import GpuId, NodeId
from planner.domain.observation import HoldCommand, NodeObservation, PowerAckSeen
from planner.domain.plan import PowerDecision
from planner.domain.units import GpuSetpoint, Milliwatts


class Stored(NamedTuple):
    """A decision on its subject."""

    order: PowerDecision
    epoch: int
    incarnation: str
    published_s: float
    known: int
    """How many of the site's budgets its leader knew of."""


class Report(NamedTuple):
    """Telemetry, made at ``made_s`` of everybody's time."""

    seen: NodeObservation
    made_s: float


class Gpu(NamedTuple):
    """One card: the limit that is set, and the limit before another tool raised it (None: as agents set it).

    ``drew_mw`` may still be drawn until ``drew_until_s``: power follows a lower limit with a lag.
    """

    set_mw: int
    lawful_mw: int | None = None
    drew_mw: int = 0
    drew_until_s: float = float("-inf")

    def counted_mw(self, now_s: float) -> int:
        """What counts against the budget, as in ``deploy/fault_simulation``'s hardware."""
        lawful = self.lawful_mw
        held = self.set_mw if lawful is None else min(self.set_mw, lawful)
        return max(held, self.drew_mw) if now_s < self.drew_until_s else held


class Copy(NamedTuple):
    """What one node's subjects held when the bus was copied."""

    decisions: tuple[Stored, ...]
    answers: tuple[PowerAckSeen, ...]


class Node(NamedTuple):
    """One machine. ``agent`` None: it is switched off. What is on its subjects may arrive at any time, or never."""

    gpus: tuple[Gpu, ...]
    agent: AgentState | None
    machine: int = 0
    process: int = 0
    resets: int = 0
    decisions: tuple[Stored, ...] = ()
    answers: tuple[PowerAckSeen, ...] = ()
    reports: tuple[Report, ...] = ()
    strays: tuple[Stored, ...] = ()
    """Decisions that left the bus before it was put back: the agent may still get them, no planner can read them."""
    copy: Copy | None = None
    incarnation: str = "1"
    """The one that the leader's decisions for this node carry."""
    incarnations: int = 1
    """How many there were."""

    @property
    def arriving(self) -> tuple[Stored, ...]:
        """All decisions that the agent may still get; the newest is the last."""
        return self.strays + self.decisions if self.strays else self.decisions


class ModelState(NamedTuple):
    """Everything. Times are seconds of one true clock, which is everybody's here."""

    now_s: float
    epoch: int
    leader: PowerState
    nodes: tuple[Node, ...]
    budgets: tuple[tuple[float, int], ...]
    """The site's true budgets, each from its instant on; oldest first."""
    left: tuple[int, ...]
    """How often each kind of rare event may still happen."""
    old: PowerState | None = None
    """A leader that was replaced and does not know it."""
    old_epoch: int = -1
    copied_epoch: int | None = None
    """The leader's epoch when the bus was copied."""
    removals: tuple[tuple[int, float], ...] = ()
    """Orders to remove a node, with when they were written; they stay on the bus."""
    ordered_mw: Milliwatts | None = None
    """The budget order in force, as written."""
    pools: Mapping[GpuId, GpuSetpoint] | None = None
    """What pools want, where there may be holds beside it."""
    holds: tuple[HoldCommand, ...] = ()
    """All commands for holds; they stay on the bus."""
    known_budgets: int = 1
    """How many of ``budgets`` the leader knew of when it last received an order: it receives all at once."""

    @property
    def order_received(self) -> bool:
        """Whether the newest budget order has reached the leader."""
        return self.known_budgets == len(self.budgets)

    def total_mw(self) -> int:
        """The sum of all hardware limits, as far as we set them."""
        now_s = self.now_s
        return sum([gpu.counted_mw(now_s) for node in self.nodes for gpu in node.gpus])

    def largest_known_mw(self, known: int) -> int:
        """The largest budget from the last of the first ``known`` on."""
        return max([mw for _, mw in self.budgets[known - 1 :]])

    def largest_mw(self, since_s: float) -> int:
        """The largest budget in force since an instant."""
        most, level = 0, self.budgets[0][1]
        for from_s, mw in self.budgets:
            if from_s > since_s:
                most = max(most, mw)
            else:
                level = mw
        return max(most, level)


def node_id(n: int) -> NodeId:
    """The name of node ``n``."""
    return NodeId(f"n{n}")


def gpu_id(n: int, g: int) -> GpuId:
    """The name of card ``g`` of node ``n``."""
    return GpuId(f"n{n}-g{g}")


def with_node(world: ModelState, n: int, node: Node) -> ModelState:
    """The same world with another node ``n``."""
    return world._replace(nodes=(*world.nodes[:n], node, *world.nodes[n + 1 :]))
