"""A pool's draw as the planner remembers it: last batch size, learned P_u, measured and expected draw."""

from __future__ import annotations

from dataclasses import dataclass, field

from planner.core.power.p_u_estimator import LearnedPower
from planner.domain.ids import NodeId

Report = tuple[NodeId, str, float | None]
"""Identifies a node's telemetry by boot and agent clock."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One pool's draw. Draws are milliwatts per GPU, smoothed over ticks; None: not yet known."""

    learned: LearnedPower = field(default_factory=LearnedPower)
    batch: float = 0.0
    """Sequences per replica at the last sample."""
    bucket: int = 0
    since_s: float = float("-inf")
    """Since when the batch is unchanged."""
    measured_mw: float | None = None
    expected_mw: float | None = None
    """Expected draw by the curve in force then: the prior's, or with the learned P_u."""
    told: frozenset[Report] = frozenset()
    """The reports of the last sample: if they come again, they are no new evidence."""
