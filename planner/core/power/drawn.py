"""What a planner remembers of a pool's draw: the batch it stood at, what was learned, and both draws to show."""

from __future__ import annotations

from dataclasses import dataclass, field

from planner.core.power.learn import Learned


@dataclass(frozen=True, slots=True)
class Drawn:
    """One pool's. Draws are milliwatts per GPU, smoothed over ticks; None: not yet known."""

    learned: Learned = field(default_factory=Learned)
    at_s: float = float("-inf")
    """The last look."""
    batch: float = 0.0
    """Sequences that each replica ran then."""
    bucket: int = 0
    since_s: float = float("-inf")
    """Since when the batch has stood."""
    measured_mw: float | None = None
    expected_mw: float | None = None
    """By the law in force then: the prior's, or with the learned P_u."""
