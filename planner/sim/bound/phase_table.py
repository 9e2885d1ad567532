"""What one phase does in each interval, by count, cap and backlog: the model that the clairvoyant plans on.

Owns the shape that both phases share, and the caps that a plan may choose from. Nothing here decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.domain.power import PowerCurve
from planner.sim.cluster.sim_gpu import GpuCard, capped_speed

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PhaseTable:
    """All arrays are by interval, count (from 1), cap and backlog level.

    ``share``: of the requests that arrive in the interval, those in time, 0..1. ``joules``: of the GPUs that serve.
    ``after``: the backlog at the end, as a place among the levels; its fraction is the probability of the level above.
    """

    share: Values
    joules: Values
    after: Values
    caps_mw: tuple[int, ...]
    gpus_per_replica: int
    startup_s: float
    starting_mw: int

    @property
    def counts(self) -> int:
        """The largest count."""
        return int(self.share.shape[1])

    @property
    def levels(self) -> int:
        """Number of backlog levels; level 0 is an empty queue."""
        return int(self.share.shape[3])


def efficient_cap_mw(curve: PowerCurve, card: GpuCard) -> int:
    """The cap at which a unit of work takes the fewest joules."""
    caps = range(card.min_mw, card.max_mw + 1, 10_000)
    return min(caps, key=lambda cap: min(cap, curve.p_u_mw) / max(1e-9, capped_speed(curve, cap)))


def caps_for_hours(card: GpuCard) -> tuple[int, ...]:
    """One cap: watts cost nothing, so that every GPU has them all."""
    return (card.max_mw,)


def caps_for_joules(curve: PowerCurve, card: GpuCard) -> tuple[int, ...]:
    """All watts, the fewest joules for the work, and one between the two."""
    least = efficient_cap_mw(curve, card)
    full = min(card.max_mw, max(least, curve.p_u_mw))
    return tuple(sorted({least, (least + full) // 2, card.max_mw}))


def caps_for_budget(curve: PowerCurve, card: GpuCard, number: int = 12) -> tuple[int, ...]:
    """Evenly from the card's lowest to what the phase draws at most: a budget is shared in steps of some 35 W a GPU."""
    most = min(card.max_mw, max(card.min_mw, curve.p_u_mw))
    return tuple(int(mw) for mw in np.linspace(card.min_mw, most, number))
