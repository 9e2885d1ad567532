"""The power-performance law of one GPU in one phase, in milliwatts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PowerCurve:
    """``speed(cap) = 1`` above ``p_u``, ``((cap - p_s) / (p_u - p_s)) ** alpha`` below.

    Three-parameter law fitted to measured cap sweeps. All powers are milliwatts per GPU.
    ``useful_mw`` is the lowest cap worth giving to a GPU that serves; ``min_mw`` and ``max_mw`` are the
    hardware's constraints. Draw under load is ``min(cap, p_u)``; an idle GPU draws ``idle_mw``.
    """

    p_s_mw: int
    p_u_mw: int
    alpha: float
    idle_mw: int
    min_mw: int
    max_mw: int
    useful_mw: int
