"""A scenario on clusters of any size, each with a fleet that fills it when the load begins.

The fleet at the start is split by the work of the first minutes, so that what is measured is the size and not a cold
start. From then on the policy decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from planner.domain.pool import Role
from planner.sim.capacity.needed_workers import needed
from planner.sim.cluster.plant import NoFreeGpuError
from planner.sim.workload.scenario import Scenario

FIRST_S = 300
"""Seconds of load by which the fleet at the start is split."""


def work_by_pool(scenario: Scenario) -> Mapping[str, float]:
    """Mean workers that the first minutes keep busy, by pool; above 0."""
    needs = needed(scenario)
    return {
        pool.pool: max(1e-6, float(needs[Role.PREFILL if pool.role is Role.PREFILL else Role.DECODE][:FIRST_S].mean()))
        for pool in scenario.pools
    }


def busiest_gpus(scenario: Scenario) -> int:
    """GPUs that the busiest second keeps busy by the profile: where a search may begin."""
    needs = needed(scenario)
    peaks = (
        pool.gpus_per_replica * math.ceil(needs[Role.PREFILL if pool.role is Role.PREFILL else Role.DECODE].max())
        for pool in scenario.pools
    )
    return sum(peaks)


def cluster_sizes(scenario: Scenario, most_gpus: int) -> tuple[int, ...]:
    """The sizes up to ``most_gpus`` that hold a worker of each pool, in steps that a worker can use."""
    sizes = [pool.gpus_per_replica for pool in scenario.pools]
    step = math.gcd(*sizes)
    return tuple(gpus for gpus in range(sum(sizes), most_gpus + 1, step) if _holds_each(scenario, gpus))


def _holds_each(scenario: Scenario, gpus: int) -> bool:
    if gpus >= 2 * scenario.cluster.gpus_per_node:
        return True
    return _holds(_on(scenario, gpus), dict.fromkeys((pool.pool for pool in scenario.pools), 1))


def sized(scenario: Scenario, gpus: int, work: Mapping[str, float]) -> Scenario:
    """The scenario on ``gpus`` GPUs, full nodes and a last smaller one, with a fleet split by ``work`` (by pool).

    Raises NoFreeGpuError where the cluster cannot hold a worker of each of its two pools.
    """
    cluster = _on(scenario, gpus)
    first, second = scenario.pools
    fleets = []
    for count in range(1, (gpus - second.gpus_per_replica) // first.gpus_per_replica + 1):
        other = (gpus - count * first.gpus_per_replica) // second.gpus_per_replica
        fleet = {first.pool: count, second.pool: other}
        fleets.append((min(replicas / work[name] for name, replicas in fleet.items()), fleet))
    for _, fleet in sorted(fleets, key=lambda each: -each[0]):
        if _holds(cluster, fleet):
            return replace(cluster, pools=tuple(replace(pool, replicas=fleet[pool.pool]) for pool in scenario.pools))
    least = dict.fromkeys((pool.pool for pool in scenario.pools), 1)
    if not _holds(cluster, least):
        raise NoFreeGpuError(f"{gpus} GPUs hold no worker of each pool")
    return replace(cluster, pools=tuple(replace(pool, replicas=1) for pool in scenario.pools))


def _on(scenario: Scenario, gpus: int) -> Scenario:
    per_node = min(gpus, scenario.cluster.gpus_per_node)
    nodes = math.ceil(gpus / per_node)
    last = gpus - (nodes - 1) * per_node
    cluster = replace(scenario.cluster, nodes=nodes, gpus_per_node=per_node, gpus_of_last_node=last)
    return replace(scenario, cluster=cluster)


def _holds(scenario: Scenario, fleet: Mapping[str, int]) -> bool:
    try:
        scenario.plant(fleet)
    except NoFreeGpuError:
        return False
    return True
