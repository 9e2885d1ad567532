"""A scope: one tiny world with its numbers, what may happen in it, and how often. ``scopes.py`` has them by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.domain.config import SiteConfig
from planner.domain.ids import SiteId
from planner.domain.units import Milliwatts

RARE = (
    "time",
    "wants",
    "restart",
    "fail-over",
    "order",
    "reset",
    "reboot",
    "switch-off",
    "remove",
    "join",
    "bound",
    "week",
    "copy",
    "put-back",
    "hold",
)
"""Kinds of events that a path may hold only so often. Deliveries, ticks, looks and reports have no such limit."""
SITE = SiteId("tiny")


@dataclass(frozen=True, slots=True)
class SearchScope:
    """One world. Watts of a GPU: its hardware's least and most and its default; times are seconds.

    ``wants`` are the optimiser's choices, each a cap in watts for every GPU of the site, node after node; the search
    begins at rest under ``wants[0]``; 0: no pool has that GPU. ``rare`` is how often each kind of ``RARE`` may happen
    in one path.
    """

    name: str
    why: str
    budget_watts: int
    wants: tuple[tuple[int, ...], ...]
    rare: Mapping[str, int]
    nodes: int = 1
    gpus: int = 1
    decisions: int = 2
    """How many of a node's last decisions may still arrive; ``answers`` and ``reports`` likewise."""
    answers: int = 1
    reports: int = 1
    steps_s: tuple[float, ...] = (4.0, 9.0)
    orders_watts: tuple[int | None, ...] = ()
    """Budgets that an operator may order; None lifts the order."""
    holds: tuple[tuple[int, float], ...] = ()
    """What a profiler may hold the last GPU of the first node at: watts, and for how many seconds."""
    least_watts: int = 200
    most_watts: int = 700
    default_watts: int = 700
    late: int = 0
    """How many nodes are switched on only by a ``join``."""
    expected: bool = True
    """Whether ``expected_gpus`` and ``expected_nodes`` are configured."""
    sharp: bool = True
    """Limits are set by our agents alone, so that no GPU may ever stand above its charge."""
    sharp_to_raise: bool = False
    """Once the leader may raise, no GPU may stand above its charge: over an old copy it needs until then."""
    late_reports: bool = False
    """A report may arrive late, never, or twice; otherwise each arrives when it is made, and older ones again."""
    uncommanded: int = 0
    """How many of the last nodes are up and have reported without having been sent a decision by any planner."""
    reports_in_time: bool = False
    """Time passes only when every node that is up has reported, as agents do each second."""
    telemetry_lost: bool = False
    """At a fail-over no telemetry is left on the bus."""
    answers_restored: bool = True
    """A copy of the bus that is put back also holds old answers; otherwise the answers are the newest."""
    strays: bool = False
    """Decisions that left the bus before it was put back may still arrive."""
    copy_lacks: int = 0
    """How many of the last nodes joined after the copy was made, so that it holds nothing of them."""
    copied_first: bool = False
    """The bus was copied at rest under the first wants; the search begins at rest under the second."""
    copy_recognised: bool = True
    """The new leader knows that it leads over a copy: by its age, or by a sequence that went back."""
    zombie: bool = False
    """A leader that was replaced goes on once, as if it knew nothing."""
    partial: bool = False
    """An agent may die between two writes."""
    draw_lag_s: float = 0.0
    """How long a GPU may draw at its old limit after a lower one was set."""
    bounds_watts: tuple[int | None, ...] = ()
    """An annotation's bound on each GPU of a node; None takes it away."""
    symmetric: bool = True
    """Nodes are alike, so that worlds which differ by their names only are one."""
    judged_every: int = 200
    """One in this many worlds is judged in calm weather."""
    long: bool = False
    """Too large for the gate: for the night."""
    config: SiteConfig = field(init=False)

    def __post_init__(self) -> None:
        turned = {want[self.gpus :] + want[: self.gpus] for want in self.wants}
        if self.symmetric and self.nodes == 2 and turned != set(self.wants):
            raise ValueError(f"scope {self.name}: its wants distinguish its nodes, so that they are not symmetric")
        config = SiteConfig(
            site=SITE,
            budget_mw=Milliwatts(self.budget_watts * 1000),
            lease_s=9.0,
            settle_s=1.0,
            clock_skew=0.0,
            flight_s=0.5,
            expected_gpus=self.nodes * self.gpus if self.expected else None,
            expected_nodes=self.nodes if self.expected else None,
        )
        object.__setattr__(self, "config", config)

    @property
    def rise_window_s(self) -> float:
        """As in the random proof: grants made under an older budget may be on their way for so long."""
        return self.config.lease_s * 1.02 + 1.0

    def budgets(self) -> tuple[int, ...]:
        """How often each kind of ``RARE`` may still happen at the start."""
        unknown = set(self.rare) - set(RARE)
        if unknown:
            raise ValueError(f"scope {self.name}: no rare event is called {min(unknown)!r}")
        return tuple(self.rare.get(kind, 0) for kind in RARE)
