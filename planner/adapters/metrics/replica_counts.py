"""Counts replicas where metrics alone cannot: from GPU telemetry and from what actuators acknowledged. Pure.

Metrics know the workers that serve; telemetry knows who holds GPUs; an acknowledgement knows how many were ready.
A source that knows every state is used as it is. Otherwise ready replicas come from metrics, else from the
acknowledgement, else from telemetry, and those that hold GPUs without serving are starting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from planner.domain.ids import DeploymentId, PoolId
from planner.domain.observation import DeploymentObservation, NodeObservation, PoolObservation
from planner.domain.pool import Replicas

Holders = Mapping[tuple[DeploymentId, PoolId], tuple[int, int]]


def holders(nodes: Iterable[NodeObservation]) -> Holders:
    """Workers that hold GPUs, by deployment and pool: (staying, terminating). A worker of many GPUs counts once."""
    staying: defaultdict[tuple[DeploymentId, PoolId], set[str]] = defaultdict(set)
    leaving: defaultdict[tuple[DeploymentId, PoolId], set[str]] = defaultdict(set)
    for node in nodes:
        for gpu in node.gpus.values():
            if gpu.deployment is not None and gpu.pool is not None:
                workers = leaving if gpu.terminating else staying
                workers[gpu.deployment, gpu.pool].add(gpu.worker or gpu.gpu)
    keys = staying.keys() | leaving.keys()
    return {key: (len(staying[key] - leaving[key]), len(leaving[key])) for key in keys}


def with_replicas(
    seen: DeploymentObservation,
    deployment: DeploymentId,
    pools: Iterable[PoolId],
    held: Holders,
    acked: Mapping[str, int],
) -> DeploymentObservation:
    """The observation with every pool that anything is known of."""
    known = dict(seen.pools)
    for pool in pools:
        found = _pool(known.get(pool), held.get((deployment, pool)), acked.get(pool))
        if found is not None:
            known[pool] = found
    return replace(seen, pools=known)


def _pool(seen: PoolObservation | None, held: tuple[int, int] | None, acked: int | None) -> PoolObservation | None:
    if seen is not None and seen.complete:
        return seen
    staying, leaving = held or (0, 0)
    ready = seen.replicas.ready if seen is not None else acked
    if ready is None:
        return PoolObservation(Replicas(ready=staying, terminating=leaving)) if held is not None else None
    replicas = Replicas(ready=ready, starting=max(0, staying - ready), terminating=leaving)
    return replace(seen, replicas=replicas) if seen is not None else PoolObservation(replicas)
