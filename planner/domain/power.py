"""The power-performance law of one GPU in one phase, in milliwatts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PowerCurve:
    """``speed(cap) = 1`` above ``p_u``, ``((cap - p_s) / (p_u - p_s)) ** alpha`` below, and a tail near ``p_s``.

    Three-parameter law fitted to measured cap sweeps. All powers are milliwatts per GPU.
    ``useful_mw`` is the lowest sensible cap for a GPU that serves while watts suffice; ``min_mw`` and
    ``max_mw`` are the hardware's constraints. Draw under load is ``min(cap, p_u)``; an idle GPU draws ``idle_mw``.
    """

    p_s_mw: int
    p_u_mw: int
    alpha: float
    idle_mw: int
    min_mw: int
    max_mw: int
    useful_mw: int


@dataclass(frozen=True, slots=True)
class PowerFigures:
    """Measured and expected draw of one pool's GPUs, in milliwatts per GPU.

    ``p_u_mw`` is in force, ``assumed_p_u_mw`` was configured; they differ by what was learned at ``batch`` sequences a
    replica, from ``samples`` draws below the cap and ``bounds`` at it. ``drawn_mw`` and ``expected_mw`` are smoothed
    over ticks; None until every GPU of the pool has served for a tick.
    """

    assumed_p_u_mw: int
    p_u_mw: int
    batch: float = 0.0
    samples: int = 0
    bounds: int = 0
    drawn_mw: float | None = None
    expected_mw: float | None = None
