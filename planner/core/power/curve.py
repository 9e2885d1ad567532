"""The power-performance law of one GPU in one phase, and its closed-form inverse. Milliwatts throughout.

``speed(cap) = 1`` for ``cap >= P_u``, else ``((cap - P_s) / (P_u - P_s)) ** alpha``; draw under load is
``min(cap, P_u)``. Fitted to published cap sweeps; see ``planner.adapters.power_priors`` for figures and sources.

The law was fitted above ``P_s``. At ``P_s`` and below it gives 0, but real cards do not stop there. Below the watts at
which a straight line from the idle draw touches the law, speed follows that line: at its lowest voltage a chip's draw
above idle is proportional to its clock, and so is its speed. Sweeps that go to a card's lowest limit measured 14 to 17
% of full speed (RTX 3090, 100 of 350 W) and 23 to 34 % (RTX 4000 Ada, 30 of 130 W, single stream); the tail is kept
within 5 to 40 % there.
"""

from __future__ import annotations

import math

from planner.domain.power import PowerCurve

LEAST_SPEED, MOST_SPEED = 0.05, 0.40
"""Bounds of the tail's speed at a card's lowest limit."""


def speed(curve: PowerCurve, cap_mw: int) -> float:
    """Relative engine speed (0..1) under ``cap_mw``, by the law or by the tail below its fitted range."""
    fitted = fitted_speed(curve, cap_mw)
    end_mw = tail_end_mw(curve)
    if cap_mw >= end_mw:
        return fitted
    top = fitted_speed(curve, end_mw)
    line = top * (curve.min_mw - curve.idle_mw) / max(1.0, end_mw - curve.idle_mw)
    slowest = min(MOST_SPEED, max(LEAST_SPEED, line), top)
    share = max(0.0, (cap_mw - curve.min_mw) / (end_mw - curve.min_mw))
    return max(fitted, slowest + (top - slowest) * share)


def fitted_speed(curve: PowerCurve, cap_mw: int) -> float:
    """The law alone: 0 at or below ``P_s``."""
    if cap_mw >= curve.p_u_mw:
        return 1.0
    if cap_mw <= curve.p_s_mw:
        return 0.0
    return float(((cap_mw - curve.p_s_mw) / (curve.p_u_mw - curve.p_s_mw)) ** curve.alpha)


def tail_end_mw(curve: PowerCurve) -> int:
    """Where the tail ends: the line from the idle draw touches the law. 0 where the law covers every possible cap."""
    if curve.min_mw > curve.p_s_mw or curve.alpha >= 1.0 or curve.idle_mw >= curve.p_s_mw:
        return 0
    touch = (curve.p_s_mw - curve.alpha * curve.idle_mw) / (1.0 - curve.alpha)
    return min(curve.p_u_mw, math.ceil(touch))


def is_fixed(curve: PowerCurve) -> bool:
    """Whether the operator allows a single cap."""
    return curve.useful_mw >= curve.max_mw


def chosen_speed(curve: PowerCurve, cap_mw: int) -> float:
    """Speed for choosing among useful caps: by the law, where the tail counts for nothing; a fixed cap may be there."""
    return speed(curve, cap_mw) if is_fixed(curve) else fitted_speed(curve, cap_mw)


def cap_for_speed(curve: PowerCurve, wanted: float) -> int:
    """The smallest useful cap that reaches ``wanted``: rounded up to a milliwatt, within ``useful..max``.

    A speed above 1 is treated as 1, because no cap reaches it.
    """
    share = min(1.0, max(0.0, wanted))
    exact: float = curve.p_s_mw + (curve.p_u_mw - curve.p_s_mw) * share ** (1.0 / curve.alpha)
    return max(curve.useful_mw, min(curve.max_mw, math.ceil(exact - 1e-6)))


def draw_mw(curve: PowerCurve, cap_mw: int, utilisation: float) -> int:
    """Expected mean draw at a busy share of ``utilisation`` (0..1, of the time at the capped speed)."""
    return round(mean_draw_mw(curve, cap_mw, utilisation))


def mean_draw_mw(curve: PowerCurve, cap_mw: int, utilisation: float) -> float:
    """``draw_mw`` before rounding, for sums."""
    busy = min(1.0, max(0.0, utilisation))
    loaded = min(cap_mw, curve.p_u_mw)
    return curve.idle_mw + busy * max(0, loaded - curve.idle_mw)
