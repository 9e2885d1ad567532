"""Watts on the wire and in settings, integer milliwatts inside: sums of caps are exact, rounding goes downwards."""

from __future__ import annotations

import math

MW_PER_WATT = 1000


def mw_from_watts(watts: float) -> int:
    """Milliwatts in ``watts``, rounded down (rounding never raises a budget or a cap).

    Tolerates a hundredth of a milliwatt, so that 0.1 + 0.2 W is 300 mW.
    Raises ValueError for a number that is not finite.
    """
    if not math.isfinite(watts):
        raise ValueError(f"watts must be a finite number, not {watts}")
    return math.floor(watts * MW_PER_WATT + 0.01)


def watts_from_mw(mw: int) -> float:
    """Watts in ``mw``, for display and for the wire."""
    return mw / MW_PER_WATT
