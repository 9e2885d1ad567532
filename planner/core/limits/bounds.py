"""Bounds that do not move with the load: fewest and most replicas, the largest step, the GPU budget."""

from __future__ import annotations

from collections.abc import Mapping

from planner.core.limits.limiter import CountsByPool, LimitContext, each_pool
from planner.domain.config import DeploymentConfig, PoolConfig
from planner.domain.ids import PoolId
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode

SHORT_SPEED = 1.3
"""A pool whose replicas in force need more speed than this is short: more than the reserve that caps leave. Short of
GPUs, a lower figure moves them for little (4p1d of four GPUs each: 96.4 to 95.3 % good at 1.0)."""


def replica_bounds(context: LimitContext, counts: CountsByPool) -> CountsByPool:
    """Limiter: between each pool's fewest and most replicas."""
    return each_pool(context, counts, min_and_max_replicas)


def keep_partners_awake(_: LimitContext, counts: CountsByPool) -> CountsByPool:
    """Limiter: no pool stays at zero while another serves, because a request needs all of them."""
    if not any(counts.values.values()):
        return counts
    awake = Limited(1, ReasonCode.PARTNER_HELD, "kept while its partner serves")
    return counts.then({name: awake for name, count in counts.values.items() if not count})


def gpu_budget(context: LimitContext, counts: CountsByPool) -> CountsByPool:
    """Limiter: the pools' GPUs together within the deployment's budget.

    Without a scale-down window replicas are kept in case they are wanted again. That does not keep the GPUs of those
    that two ticks in a row did not want from another pool of the deployment that is short; a window that was set does.
    """
    return counts.then(gpu_shares(context.config, counts.values, context.current, _without_windows(context, counts)))


def min_and_max_replicas(pool: PoolConfig, count: int) -> Limited | None:
    """``count`` between the pool's min and max."""
    planned = pool.schedule is not None
    now = " now, by schedule" if planned else ""
    if count < pool.min_replicas:
        reason = ReasonCode.SCHEDULE if planned else ReasonCode.MIN_REPLICAS
        return Limited(pool.min_replicas, reason, f"at least {pool.min_replicas} {pool.pool} replicas{now}")
    if count > pool.max_replicas:
        reason = ReasonCode.SCHEDULE if planned else ReasonCode.MAX_REPLICAS
        return Limited(pool.max_replicas, reason, f"at most {pool.max_replicas} {pool.pool} replicas{now}")
    return None


def largest_step(pool: PoolConfig, current: int, count: int) -> Limited | None:
    """``count`` no further than ``max_step`` from ``current``."""
    if pool.max_step is None or abs(count - current) <= pool.max_step:
        return None
    held = current + pool.max_step if count > current else current - pool.max_step
    return Limited(held, ReasonCode.MAX_STEP, f"at most {pool.max_step} replicas a tick")


def gpu_shares(
    config: DeploymentConfig,
    counts: Mapping[PoolId, int],
    current: Mapping[PoolId, int],
    needed: Mapping[PoolId, int] | None = None,
) -> Mapping[PoolId, Limited]:
    """The pools whose ``counts`` shrink to fit the deployment's GPU budget.

    Keeps the largest share of the load that ALL pools can carry: each pool keeps the same fraction of what it wants,
    and whole replicas that are left over go where the fraction is lowest. Floors, and one replica of each pool, take
    precedence over the budget. As long as everything fits, no pool shrinks below its count in ``current`` to make room
    for another: only its own windows decide that. ``needed``: what the load wants of pools that a window keeps above
    it; they shrink to it first, and keep what is left over.
    """
    if config.max_gpus is None:
        return {}
    size = {name: config.pools[name].gpus_per_replica for name in counts}
    if sum(counts[name] * size[name] for name in counts) <= config.max_gpus:
        return {}
    wants = {**counts, **(needed or {})}
    kept = {name: min(count, max(1, config.pools[name].min_replicas)) for name, count in wants.items()}
    if current:
        held = {name: max(kept[name], min(count, current[name])) for name, count in wants.items()}
        if sum(held[name] * size[name] for name in held) <= config.max_gpus:
            kept = held
    kept = _filled(kept, wants, size, config.max_gpus)
    kept = _filled(kept, counts, size, config.max_gpus)
    sentence = f"the budget of {config.max_gpus} GPUs is shared so that all pools carry the same load"
    return {name: Limited(kept[name], ReasonCode.GPU_BUDGET, sentence) for name in counts if kept[name] < counts[name]}


def _filled(
    kept: Mapping[PoolId, int], wants: Mapping[PoolId, int], size: Mapping[PoolId, int], most_gpus: int
) -> dict[PoolId, int]:
    """``kept`` and replicas up to ``wants``, one by one where the smallest fraction is kept, while GPUs are left."""
    found = dict(kept)
    free = most_gpus - sum(count * size[name] for name, count in found.items())
    while open_ := [name for name in wants if found[name] < wants[name] and size[name] <= free]:
        neediest = min(open_, key=lambda name: (found[name] / wants[name], name))
        found[neediest] += 1
        free -= size[neediest]
    return found


def _without_windows(context: LimitContext, counts: CountsByPool) -> dict[PoolId, int]:
    """The most that this tick and the one before wanted of each pool that only a default scale-down window keeps above
    it; empty if none is short.
    """
    current, options = context.current, context.options
    grows = [name for name, count in counts.values.items() if count > current.get(name, count) and name in options]
    if not any(options[name].speed_at(current[name]) > SHORT_SPEED for name in grows):
        return {}
    found = {}
    for name, limits in counts.pools.items():
        pool = context.config.pools[name]
        if not limits.chain or limits.chain[-1].reason is not ReasonCode.STABILIZATION_DOWN:
            continue
        if pool.scale_down.stabilization_window_s is None:
            before = limits.chain[-2].value if len(limits.chain) > 1 else context.options[name].wanted
            past = context.state.learned.pools[name].recommendations
            confirmed = max(before, past[-1][1]) if past else before
            found[name] = min(limits.count, max(confirmed, pool.min_replicas))
    return found
