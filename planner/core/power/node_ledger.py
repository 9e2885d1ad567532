"""The ledger of one node as a value: its GPUs, what they are charged, and why.

Columns have the order of ``cards.gpus``. Values only; ``charging.py`` has the rules by which a ledger changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress
from operator import not_
from typing import NamedTuple

from planner.domain.ids import GpuId, NodeId
from planner.domain.observation import NodeObservation
from planner.domain.units import GpuSetpoint

Column = tuple[int, ...]

NOT_DECIDED = 0
"""The cap of a GPU that decisions do not name, because a pod that is not ours holds it."""

NEVER_S = float("-inf")


@dataclass(frozen=True, slots=True)
class Cards:
    """The GPUs of a node and their limits, in milliwatts."""

    gpus: tuple[GpuId, ...]
    default_mw: Column
    min_mw: Column
    max_mw: Column

    highest_mw: Column = field(init=False, compare=False)
    """The highest limit that each GPU can have: by a reload (the default) or by a grant (the maximum)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "highest_mw", tuple(map(max, self.default_mw, self.max_mw)))


@dataclass(frozen=True, slots=True)
class Sent:
    """A published decision that the agent may still act on: its id and the caps that it allows."""

    decision_id: int
    caps_mw: Column


class NodeLedger(NamedTuple):
    """What one node may draw. ``charge_mw`` is W; ``cost_mw`` also counts what has not settled yet.

    A named tuple, because a step over 10,000 GPUs mostly replaces such values, at a third of a dataclass's cost.
    """

    node: NodeId
    cards: Cards
    hardware_mw: Column
    """The limit that the hardware was last proven to hold; the default where nothing is proven."""
    healthy: tuple[bool, ...]
    busy: tuple[bool, ...]
    sent: tuple[Sent, ...]
    """Oldest first; the first may be the acknowledged one, which stays the agent's intent."""
    caps_mw: Column | None
    """Caps of the newest decision; None while this node was never commanded."""
    charge_mw: Column
    cost_mw: Column
    total_mw: int
    """Sum of ``cost_mw`` over the GPUs that the budget covers."""
    acked_id: int = -1
    next_id: int = 0
    boot: str = ""
    clock_s: float | None = None
    heard_boot: str = ""
    heard_clock_s: float | None = None
    reported_s: float = NEVER_S
    sent_s: float = NEVER_S
    sent_share: int = 0
    """The site's ``share`` in the newest decision: with it the agent's fallbacks are known."""
    marked: bool = False
    """The newest decision charges the highest limits, because the ledger may come from an old copy of the bus."""
    proven: bool = True
    """False: inherited, and no decision of this leader has been answered yet."""
    inherited_s: float = NEVER_S
    """When a predecessor last commanded this node."""
    unanswered_s: float | None = None
    """When the oldest unanswered decision was published."""
    raised_s: float = NEVER_S
    held_until_s: float = NEVER_S
    seen: NodeObservation | None = None
    wanted: tuple[GpuSetpoint | None, ...] | None = None
    goal_mw: Column | None = None
    """Derived from ``wanted``; None: must be derived again."""
    enforced_mw: int = 0
    draw_mw: int | None = None
    covered: tuple[bool, ...] | None = None
    """GPUs that the budget covers; None: all of them. ``coverage.py`` has the rules."""
    held: tuple[bool, ...] = ()
    """GPUs that pods of the site's deployments hold by the newest report; kept only where ``covered`` is."""

    @property
    def answered(self) -> bool:
        """Whether the newest decision was answered, and it is this leader's."""
        return self.proven and self.acked_id >= self.next_id - 1

    @property
    def reported_since_answer(self) -> bool:
        """Whether a report is later than the last answer, by the agent's own clock."""
        seen = self.seen
        return seen is not None and seen.boot == self.boot and (seen.clock_s or 0.0) >= (self.clock_s or 0.0)

    def stuck(self) -> tuple[bool, ...]:
        """GPUs that did not follow the newest decision although it was answered, or that cannot follow."""
        if self.caps_mw is None or self.acked_id < self.next_id - 1 or self.hardware_mw == self.caps_mw:
            return tuple(map(not_, self.healthy))
        floor = map(max, self.caps_mw, self.cards.min_mw)
        rows = zip(self.healthy, self.hardware_mw, self.caps_mw, floor, strict=True)
        return tuple(not ok or (cap != NOT_DECIDED and hw > low) for ok, hw, cap, low in rows)


def total_of(cost_mw: Column, covered: tuple[bool, ...] | None) -> int:
    """The part of ``cost_mw`` that counts against the budget."""
    return sum(cost_mw) if covered is None else sum(compress(cost_mw, covered))
