"""Watts on the wire and in settings, integer milliwatts inside: sums of caps are exact, rounding goes downwards.

Also the setpoint of a GPU, which planner and agent have in common. A pure leaf: both cores import it.
"""

from __future__ import annotations

import math
from typing import NamedTuple, NewType, Self

MW_PER_WATT = 1000

Milliwatts = NewType("Milliwatts", int)
"""Power as a whole number of milliwatts. Watts are floats, found on the wire, in settings and on the screen only."""


class GpuSetpoint(NamedTuple):
    """What one GPU is asked to run at. Frozen; a named tuple, because a ledger of 10,000 GPUs compares them every step.

    The cap is the only knob today. Another one is a field here, after the cap, with a default.
    """

    cap_mw: Milliwatts

    def with_cap(self, cap_mw: Milliwatts) -> Self:
        """The same setpoint at another cap; every other knob stays."""
        return type(self)._make((cap_mw, *self[1:]))


def mw_from_watts(watts: float) -> Milliwatts:
    """Milliwatts in ``watts``, rounded down (rounding never raises a budget or a cap).

    Tolerates a hundredth of a milliwatt, so that 0.1 + 0.2 W is 300 mW.
    Raises ValueError for a number that is not finite.
    """
    if not math.isfinite(watts):
        raise ValueError(f"watts must be a finite number, not {watts}")
    return Milliwatts(math.floor(watts * MW_PER_WATT + 0.01))


def watts_from_mw(mw: int) -> float:
    """Watts in ``mw``, for display and for the wire."""
    return mw / MW_PER_WATT
