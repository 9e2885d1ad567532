"""HPA's behaviour block, with HPA's semantics: stabilization windows, then rate policies.

Where no scale-down window is set, replicas are kept by what their absence would lose (``returns``).

A scale-up goes no higher than the LOWEST recommendation of its window, a scale-down no lower than the HIGHEST one of
its window. Policies count from the replicas at the start of their period, and include events within it.
"""

from __future__ import annotations

import math

from planner.core.allocation import returns
from planner.core.allocation.returns import History
from planner.core.limits import bounds
from planner.core.limits.limiter import CountsByPool, LimitContext, each_pool
from planner.core.sizing.options import PoolOptions
from planner.core.state import PoolState
from planner.domain.config import PoolConfig, ScalingPolicy, ScalingRules
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode

KEPT_WINDOWS = 4.0
"""Times a default scale-down window, which is five start-up times: so long may a load that returns stay away."""


def ignore_small_changes(context: LimitContext, counts: CountsByPool) -> CountsByPool:
    """Limiter: the count in force where the load differs from what it can carry by no more than the tolerance."""
    return each_pool(
        context,
        counts,
        lambda pool, count: tolerate(pool, context.options.get(pool.pool), context.current[pool.pool], count),
    )


def stabilization_window(context: LimitContext, counts: CountsByPool) -> CountsByPool:
    """Limiter: HPA's stabilization windows; without one, scale-down by what it costs."""
    current, pools, seen_s = context.current, context.state.learned.pools, context.clock.seen_s

    def limit(pool: PoolConfig, count: int) -> Limited | None:
        now, known = current[pool.pool], pools[pool.pool]
        if 0 < count < now and not context.gpus_to_spare and returns.by_cost(pool):
            return keep(pool, now, count, known, seen_s, context.config.ttft_quantile)
        window_s = kept_s(pool) if context.gpus_to_spare and count > 0 else pool.down_window_s
        return stabilize(pool, now, count, known.recommendations, seen_s, window_s)

    return each_pool(context, counts, limit)


def scaling_rate(context: LimitContext, counts: CountsByPool) -> CountsByPool:
    """Limiter: HPA's rate policies, then the largest step of the pool."""
    current, pools, seen_s = context.current, context.state.learned.pools, context.clock.seen_s
    limited = each_pool(
        context,
        counts,
        lambda pool, count: rate_limit(pool, current[pool.pool], count, pools[pool.pool].events, seen_s),
    )
    return each_pool(context, limited, lambda pool, count: bounds.largest_step(pool, current[pool.pool], count))


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


def stabilize(
    pool: PoolConfig, current: int, recommended: int, past: History, t_s: float, down_window_s: float | None = None
) -> Limited | None:
    """The count that the windows let through where they change ``recommended``; ``past`` excludes this tick's.

    ``down_window_s``: in place of the pool's own.
    """
    down_s = pool.down_window_s if down_window_s is None else down_window_s
    up_from, down_from = t_s - pool.up_window_s, t_s - down_s
    lowest = min([recommended, *[count for at, count in past if at > up_from]])
    highest = max([recommended, *[count for at, count in past if at > down_from]])
    allowed = min(max(current, lowest), highest)
    if allowed == recommended:
        return None
    if recommended > current:
        window, reason = pool.up_window_s, ReasonCode.STABILIZATION_UP
    else:
        window, reason = down_s, ReasonCode.STABILIZATION_DOWN
    wanted = "fewest" if reason is ReasonCode.STABILIZATION_UP else "most"
    return Limited(allowed, reason, f"{allowed} is the {wanted} recommended in the last {window:.0f} s")


def keep(
    pool: PoolConfig, current: int, recommended: int, known: PoolState, t_s: float, quantile: float
) -> Limited | None:
    """The most replicas above ``recommended`` that are worth keeping; None where none is."""
    for count, gone_s in returns.unwanted(known.lasting, recommended, current, t_s):
        if (worth := returns.worth_keeping(pool, known.gaps, gone_s, quantile)) is not None:
            sentence = (
                f"{count} were wanted {gone_s:.0f} s ago: {worth.returns} of {worth.gaps} loads gone so long came back "
                f"within {worth.within_s:.0f} s more, and to miss them costs more than to wait"
            )
            return Limited(count, ReasonCode.STABILIZATION_DOWN, sentence)
    return None


def kept_s(pool: PoolConfig) -> float:
    """The scale-down window, in seconds, while a site is short of watts and has GPUs to spare.

    A replica that is given up costs requests for a start-up time when it is wanted again, where watts are moved to it
    within a second; one that is kept costs the lowest cap of its GPUs. A window that was set stays as it is.
    """
    return pool.down_window_s * (1.0 if pool.scale_down.stabilization_window_s is not None else KEPT_WINDOWS)


def rate_limit(pool: PoolConfig, current: int, desired: int, events: History, t_s: float) -> Limited | None:
    """The count that the rate policies let through where they change ``desired``."""
    if desired > current:
        limit = max(current, _limit_up(pool.scale_up, current, events, t_s))
        if desired > limit:
            return Limited(limit, ReasonCode.SCALE_UP_POLICY, f"scale-up policies allow {limit} now")
    elif desired < current:
        limit = min(current, _limit_down(pool.scale_down, current, events, t_s))
        if desired < limit:
            return Limited(limit, ReasonCode.SCALE_DOWN_POLICY, f"scale-down policies allow {limit} now")
    return None


def _limit_up(rules: ScalingRules, current: int, events: History, t_s: float) -> int:
    if rules.select == "Disabled":
        return current
    if not rules.policies:
        return _NO_LIMIT
    choose = min if rules.select == "Min" else max
    return choose(_up(policy, _at_start(policy, current, events, t_s)) for policy in rules.policies)


def _limit_down(rules: ScalingRules, current: int, events: History, t_s: float) -> int:
    if rules.select == "Disabled":
        return current
    if not rules.policies:
        return 0
    choose = max if rules.select == "Min" else min
    return max(0, choose(_down(policy, _at_start(policy, current, events, t_s)) for policy in rules.policies))


_NO_LIMIT = 1 << 30


def _at_start(policy: ScalingPolicy, current: int, events: History, t_s: float) -> int:
    """Replicas when the policy's period began: today's without what changed since."""
    return current - sum(change for at, change in events if at > t_s - policy.period_s)


def _up(policy: ScalingPolicy, start: int) -> int:
    if policy.kind == "Pods":
        return start + policy.value
    return math.ceil(start * (100 + policy.value) / 100)


def _down(policy: ScalingPolicy, start: int) -> int:
    if policy.kind == "Pods":
        return start - policy.value
    return start * (100 - policy.value) // 100


def horizon_s(pool: PoolConfig) -> float:
    """How far back, in seconds, any window or policy of the pool looks."""
    rules = (pool.scale_up, pool.scale_down)
    periods = [policy.period_s for rule in rules for policy in rule.policies]
    gone_s = returns.longest_s(pool) if returns.by_cost(pool) else 0.0
    return max([pool.up_window_s, kept_s(pool), gone_s, *periods])


def trimmed(history: History, since_s: float) -> History:
    """History without what happened at or before ``since_s``."""
    if not history or history[0][0] > since_s:
        return history
    return tuple(entry for entry in history if entry[0] > since_s)
