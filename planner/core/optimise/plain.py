"""The answer without optimising: what every pool wants at full speed, for as long as watts and GPUs last."""

from __future__ import annotations

from collections.abc import Sequence

from planner.domain.demand import Allocation, DeploymentDemand, PoolGrant, SiteLimits


def allocate(demands: Sequence[DeploymentDemand], limits: SiteLimits) -> Allocation:
    """Higher priority first; within a deployment, pools in turn."""
    pools = {}
    watts, gpus = limits.budget_mw, limits.gpus
    for demand in sorted(demands, key=lambda d: -d.priority):
        for name, pool in demand.pools.items():
            cap = pool.curve.p_u_mw
            most = min(watts // (cap * pool.gpus_per_replica), gpus // pool.gpus_per_replica)
            count = max(pool.min_replicas, min(pool.wanted, pool.max_replicas, most))
            watts -= count * pool.gpus_per_replica * cap
            gpus -= count * pool.gpus_per_replica
            pools[demand.deployment, name] = PoolGrant(count, cap, 1.0)
    return Allocation(pools)
