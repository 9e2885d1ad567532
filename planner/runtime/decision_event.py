"""One decision as its watchers see it: logs, metrics, traces, the status page, a live view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planner.core.state import PlannerState
from planner.domain.observation import Observation
from planner.domain.plan import Plan


@dataclass(frozen=True, slots=True)
class DecisionEvent:
    """What was seen, what was decided, and whether a tick or an event caused it. Times on the planner's clock."""

    observation: Observation
    plan: Plan
    state: PlannerState
    now_s: float
    tick: bool
    epoch: int
    took_s: float = 0.0
    """Computing time in seconds."""
    published: int = 0
    seen_s: float | None = None
    """When the deployments were observed, where that was before ``now_s``: a tick that fell between two leaders."""
    read_ns: tuple[int, int] | None = None
    """When reading the metrics began and ended, in Unix nanoseconds; None for a reaction and for a tick read later."""
    stored_s: float = 0.0
    """How long it took until the decisions were stored; 0 where there were none."""

    @property
    def tick_s(self) -> float:
        """The instant of the observation."""
        return self.now_s if self.seen_s is None else self.seen_s


Watcher = Callable[[DecisionEvent], None]
