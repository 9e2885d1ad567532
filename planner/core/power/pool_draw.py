"""What a planner remembers of a pool's draw: the batch it stood at, what was learned, and both draws."""

from __future__ import annotations

from dataclasses import dataclass, field

from planner.core.power.p_u_estimator import LearnedPower
from planner.domain.ids import NodeId

Report = tuple[NodeId, str, float | None]
"""A node's telemetry by its boot and its agent's clock."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One pool's. Draws are milliwatts per GPU, smoothed over ticks; None: not yet known."""

    learned: LearnedPower = field(default_factory=LearnedPower)
    batch: float = 0.0
    """Sequences that each replica ran then."""
    bucket: int = 0
    since_s: float = float("-inf")
    """Since when the batch has stood."""
    measured_mw: float | None = None
    expected_mw: float | None = None
    """By the law in force then: the prior's, or with the learned P_u."""
    told: frozenset[Report] = frozenset()
    """The reports that the last look took in: shown again, they are no new evidence."""
