"""One pool's way from the wanted count to the granted one: every limiter in its order, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from planner.core.limits import bounds, hpa_behavior
from planner.core.sizing.options import PoolOptions
from planner.core.state import PoolState
from planner.domain.config import PoolConfig
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode


@dataclass(frozen=True, slots=True)
class Limits:
    """A count with the limiters that brought it there."""

    count: int
    chain: tuple[Limited, ...] = ()

    def then(self, limited: Limited | None) -> Limits:
        """After one more limiter; None let the count through."""
        if limited is None:
            return self
        return Limits(limited.value, (*self.chain, limited))


def tolerate(pool: PoolConfig, options: PoolOptions | None, current: int, recommended: int) -> Limited | None:
    """``current`` where its load differs from what it can carry by no more than the tolerance.

    HPA's usage ratio is the speed that the current count would need: 1 = exactly enough.
    """
    if options is None or current <= 0 or recommended in (0, current):
        return None
    ratio = options.speed_at(current)
    if recommended > current and ratio <= 1.0 + pool.scale_up.tolerance:
        return Limited(current, ReasonCode.TOLERANCE, f"{current} replicas are loaded {ratio:.0%}: within tolerance")
    if recommended < current and ratio >= 1.0 - pool.scale_down.tolerance:
        return Limited(current, ReasonCode.TOLERANCE, f"{current} replicas are loaded {ratio:.0%}: within tolerance")
    return None


def apply(pool: PoolConfig, state: PoolState, current: int, recommended: Limits, t_s: float) -> Limits:
    """Windows, rates and bounds. A count outside min and max is brought back whatever the windows say, as in HPA."""
    limits = recommended.then(hpa_behavior.stabilize(pool, current, recommended.count, state.recommendations, t_s))
    limits = limits.then(hpa_behavior.rate_limit(pool, current, limits.count, state.events, t_s))
    limits = limits.then(bounds.largest_step(pool, current, limits.count))
    return limits.then(bounds.floor_and_ceiling(pool, limits.count))


def held(limits: Limits, count: int, reason: ReasonCode, sentence: str) -> Limits:
    """The count held by something that is no limiter of numbers (missing metrics, a pause, a pin)."""
    return limits.then(Limited(count, reason, sentence))
