"""One decision, as whoever watches sees it: logs, metrics, traces, the status page, a live view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planner.core.state import PlannerState
from planner.domain.observation import Observation
from planner.domain.plan import Plan


@dataclass(frozen=True, slots=True)
class Decided:
    """What was seen, what was decided, and whether a tick or an event asked. Times on the planner's clock."""

    observation: Observation
    plan: Plan
    state: PlannerState
    now_s: float
    tick: bool
    epoch: int
    took_s: float = 0.0
    """Computing time."""
    published: int = 0
    stored_s: float = 0.0
    """How long it took until the decisions were stored; 0 where there were none."""


Watcher = Callable[[Decided], None]
