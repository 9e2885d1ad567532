"""Limiter where a budget covers workers only: as many new replicas as the site can reserve watts for.

A new replica may start on any GPU that no worker holds, and draws there what that GPU is allowed before its cap is set.
The ledger reserves that before a scale-up is published, and has the last word; this limiter keeps the goal within what
it can ever reserve, and gives the reason.
"""

from __future__ import annotations

from planner.core.limits.limiter import CountsByPool, LimitContext
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode
from planner.domain.units import watts_from_mw


def start_watts(context: LimitContext, counts: CountsByPool) -> CountsByPool:
    """Limiter: the pools' new replicas together on no more GPUs than the site can reserve watts for."""
    starts = context.starts
    if starts is None:
        return counts
    left, found = starts.gpus, {}
    for name, count in counts.values.items():
        pool = context.config.pools.get(name)
        current = context.current.get(name, count)
        if pool is None or count <= current:
            continue
        more = min(count - current, left // pool.gpus_per_replica)
        left -= more * pool.gpus_per_replica
        if current + more < count:
            each = watts_from_mw(starts.each_mw)
            sentence = f"watts can be reserved for {starts.gpus} new GPUs: {each:.0f} W each, wherever a replica starts"
            found[name] = Limited(current + more, ReasonCode.START_WATTS, sentence)
    return counts.then(found)
