"""The power-performance law of one GPU in one phase, and its closed-form inverse. Milliwatts throughout.

``speed(cap) = 1`` for ``cap >= P_u``, else ``((cap - P_s) / (P_u - P_s)) ** alpha``; draw under load is
``min(cap, P_u)``. Fitted to published cap sweeps; see ``priors`` for figures and sources.
"""

from __future__ import annotations

import math

from planner.domain.power import PowerCurve


def speed(curve: PowerCurve, cap_mw: int) -> float:
    """Relative engine speed (0..1) under ``cap_mw``; 0 at or below ``P_s``, where the law does not apply."""
    if cap_mw >= curve.p_u_mw:
        return 1.0
    if cap_mw <= curve.p_s_mw:
        return 0.0
    return float(((cap_mw - curve.p_s_mw) / (curve.p_u_mw - curve.p_s_mw)) ** curve.alpha)


def cap_for_speed(curve: PowerCurve, wanted: float) -> int:
    """The smallest useful cap that reaches ``wanted``: rounded up to a milliwatt, within ``useful..max``.

    A speed above 1 is treated as 1, because no cap reaches it.
    """
    share = min(1.0, max(0.0, wanted))
    exact: float = curve.p_s_mw + (curve.p_u_mw - curve.p_s_mw) * share ** (1.0 / curve.alpha)
    return max(curve.useful_mw, min(curve.max_mw, math.ceil(exact - 1e-6)))


def draw_mw(curve: PowerCurve, cap_mw: int, utilisation: float) -> int:
    """Expected mean draw at a busy share of ``utilisation`` (0..1, of the time at the capped speed)."""
    busy = min(1.0, max(0.0, utilisation))
    loaded = min(cap_mw, curve.p_u_mw)
    return round(curve.idle_mw + busy * max(0, loaded - curve.idle_mw))
