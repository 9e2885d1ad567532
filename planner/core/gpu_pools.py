"""Which pool a GPU belongs to, by the labels of its pod; and which GPUs fit no pool.

Owns the match between a pod's labels and a deployment's pools. Must never guess between two pools: a GPU that could
belong to either is assigned to none and reported, because a cap for the wrong pool is worse than none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from planner.domain.config import DeploymentConfig, PoolConfig
from planner.domain.ids import DeploymentId, NodeId, PoolId
from planner.domain.observation import DeploymentObservation, GpuObservation, NodeObservation
from planner.domain.plan import Limited
from planner.domain.pool import Role
from planner.domain.reasons import ReasonCode

NAMED = 3
"""Maximum number of GPUs that one sentence names."""


def pool_of(component: str, role: Role | None, pools: Mapping[PoolId, PoolConfig]) -> PoolId | None:
    """The pool of a worker: the one with its ``component``, else the one of that name, else the only one of its role.

    Among several pools of a role, the one without its own ``component`` is taken. None if no pool or several fit.
    """
    wanted = component.casefold()
    if wanted:
        for name, pool in pools.items():
            if pool.component.casefold() == wanted:
                return name
        for name in pools:
            if name.casefold() == wanted:
                return name
    alike = [name for name, pool in pools.items() if pool.role is role]
    if len(alike) > 1:
        alike = [name for name in alike if not pools[name].component]
    # A graph without a prefill component gives its only workers the name of decode workers.
    if not alike and role is Role.DECODE and [pool.role for pool in pools.values()] == [Role.AGGREGATED]:
        alike = list(pools)
    return alike[0] if len(alike) == 1 else None


def matched(seen: NodeObservation, deployments: Mapping[DeploymentId, DeploymentConfig]) -> NodeObservation:
    """A node's report with its GPUs' pools as the settings name them; GPUs of other planners' deployments unchanged."""
    gpus = {name: _matched(gpu, deployments) for name, gpu in seen.gpus.items()}
    return replace(seen, gpus=gpus) if any(gpus[name] is not gpu for name, gpu in seen.gpus.items()) else seen


def _matched(gpu: GpuObservation, deployments: Mapping[DeploymentId, DeploymentConfig]) -> GpuObservation:
    known = deployments.get(gpu.deployment) if gpu.deployment is not None else None
    if known is None:
        return gpu
    pool = pool_of(gpu.component, gpu.role, known.pools)
    return gpu if pool == gpu.pool else replace(gpu, pool=pool)


Held: TypeAlias = Mapping[DeploymentId, Sequence[tuple[NodeId, GpuObservation]]]
"""The GPUs that each deployment's pods hold, with their nodes."""


def held_by(nodes: Iterable[NodeObservation]) -> Held:
    """Every GPU whose pod names a deployment, by that deployment."""
    found: dict[DeploymentId, list[tuple[NodeId, GpuObservation]]] = defaultdict(list)
    for node in nodes:
        for gpu in node.gpus.values():
            if gpu.deployment is not None:
                found[gpu.deployment].append((node.node, gpu))
    return found


def strangers(held: Held, deployment: DeploymentConfig) -> Iterator[Limited]:
    """One note for each group of GPUs that a deployment's pods hold and that belong to none of its pools."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node, gpu in held.get(deployment.deployment, ()):
        if gpu.pool not in deployment.pools:
            found[gpu.component or gpu.pool or "", gpu.role or ""].append(f"{node}/{gpu.gpu}")
    for (component, role), gpus in sorted(found.items()):
        more = f" and {len(gpus) - NAMED} more" if len(gpus) > NAMED else ""
        who = f"component {component or '(no label)'}, role {role or '(no label)'}"
        yield Limited(
            len(gpus),
            ReasonCode.POOL_UNMATCHED,
            f"{', '.join(gpus[:NAMED])}{more}: {who} is none of the pools {', '.join(deployment.pools)}; "
            f"set deployments.{deployment.deployment}.pools.POOL.component",
        )


def without_gpus(held: Held, deployment: DeploymentConfig, seen: DeploymentObservation | None) -> Iterator[Limited]:
    """One note for each pool whose workers serve while no known GPU is theirs: their caps have no effect."""
    holding = {gpu.pool for _, gpu in held.get(deployment.deployment, ())}
    for name in deployment.pools:
        known = seen.pools.get(name) if seen is not None else None
        ready = known.replicas.ready if known is not None else 0
        if ready and name not in holding:
            sentence = f"pool {name}: {ready} replicas serve, and no GPU that the agents report is theirs"
            yield Limited(ready, ReasonCode.POOL_UNMATCHED, sentence)
