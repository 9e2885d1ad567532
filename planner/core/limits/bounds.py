"""Bounds that do not move with the load: fewest and most replicas, the largest step, the GPU budget."""

from __future__ import annotations

from collections.abc import Mapping

from planner.core.limits.limiter import CountsByPool, LimitContext, each_pool
from planner.domain.config import DeploymentConfig, PoolConfig
from planner.domain.ids import PoolId
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode


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
    """Limiter: the pools' GPUs together within the deployment's budget."""
    return counts.then(gpu_shares(context.config, counts.values, context.current))


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
    config: DeploymentConfig, counts: Mapping[PoolId, int], current: Mapping[PoolId, int]
) -> Mapping[PoolId, Limited]:
    """The pools whose ``counts`` shrink to fit the deployment's GPU budget.

    Keeps the largest share of the load that ALL pools can carry: each pool keeps the same fraction of what it wants,
    and whole replicas that are left over go where the fraction is lowest. Floors, and one replica of each pool, take
    precedence over the budget. As long as everything fits, no pool shrinks below its count in ``current`` to make room
    for another: only its own windows decide that.
    """
    if config.max_gpus is None:
        return {}
    size = {name: config.pools[name].gpus_per_replica for name in counts}
    if sum(counts[name] * size[name] for name in counts) <= config.max_gpus:
        return {}
    kept = {name: min(count, max(1, config.pools[name].min_replicas)) for name, count in counts.items()}
    if current:
        held = {name: max(kept[name], min(count, current[name])) for name, count in counts.items()}
        if sum(held[name] * size[name] for name in held) <= config.max_gpus:
            kept = held
    free = config.max_gpus - sum(kept[name] * size[name] for name in kept)
    while True:
        open_ = [name for name in counts if kept[name] < counts[name] and size[name] <= free]
        if not open_:
            break
        neediest = min(open_, key=lambda name: (kept[name] / counts[name], name))
        kept[neediest] += 1
        free -= size[neediest]
    sentence = f"the budget of {config.max_gpus} GPUs is shared so that all pools carry the same load"
    return {name: Limited(kept[name], ReasonCode.GPU_BUDGET, sentence) for name in counts if kept[name] < counts[name]}
