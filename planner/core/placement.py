"""Which GPUs a pool holds and which it is about to get: read from telemetry, new ones chosen and remembered.

Owns the choice of free GPUs for new replicas. Must never take a GPU that somebody holds, and never change its mind
about one whose watts are being reserved: a choice stands until the GPU is taken or the replica is no longer wanted.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from planner.core.power.cap_changes import answers
from planner.core.power.site_state import PowerState
from planner.core.state import PlannerState
from planner.domain.config import SiteConfig
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId, SiteId
from planner.domain.observation import NodeObservation
from planner.domain.plan import Placement

Holder = tuple[DeploymentId, PoolId]


@dataclass(slots=True)
class GpuInventory:
    """A site's GPUs as telemetry last told. Short-lived and filled once a step; ``free`` shrinks as GPUs are chosen."""

    held: dict[Holder, list[GpuId]] = field(default_factory=dict)
    """GPUs of each pool's living replicas."""
    leaving: dict[Holder, list[GpuId]] = field(default_factory=dict)
    free: dict[NodeId, list[GpuId]] = field(default_factory=dict)
    gpus: int = 0


def powered(state: PlannerState, site: SiteId) -> bool:
    """Whether the site's GPUs are known. Where they are not there are counts to decide, and no watts."""
    power = state.power.get(site)
    return power is not None and bool(power.nodes)


def inventory_of(power: PowerState, config: SiteConfig, now_s: float) -> GpuInventory:
    """The site's GPUs as last reported. A silent node's pods are believed to run on."""
    silent = {name for name, node in power.nodes.items() if not answers(node, config, now_s)}
    return survey([node.seen for node in power.nodes.values() if node.seen is not None], silent)


def survey(nodes: Iterable[NodeObservation], silent: Container[NodeId] = ()) -> GpuInventory:
    """Sort a site's healthy GPUs by who holds them.

    A node in ``silent`` does not answer now: its pods are believed to run on, and nothing new is placed there.
    """
    floor = GpuInventory()
    for node in nodes:
        free = []
        for gpu in node.gpus.values():
            if not gpu.healthy:
                continue
            floor.gpus += 1
            if gpu.deployment is None and gpu.pool is None and gpu.worker is None:
                free.append(gpu.gpu)
                continue
            if gpu.deployment is None or gpu.pool is None:
                continue  # a pod holds it, and it is none of ours
            kind = floor.leaving if gpu.terminating else floor.held
            kind.setdefault((gpu.deployment, gpu.pool), []).append(gpu.gpu)
        if free and node.node not in silent:
            floor.free[node.node] = free
    return floor


def keep(floor: GpuInventory, chosen: Iterable[Placement], replicas: int) -> list[Placement]:
    """At most ``replicas`` of the earlier choices that are still free; they leave ``floor.free``."""
    kept: list[Placement] = []
    for placement in chosen:
        free = floor.free.get(placement.node, [])
        if len(kept) < replicas and all(gpu in free for gpu in placement.gpus):
            floor.free[placement.node] = [gpu for gpu in free if gpu not in placement.gpus]
            kept.append(placement)
    return kept


def choose(floor: GpuInventory, pool: PoolId, gpus_per_replica: int, replicas: int) -> list[Placement]:
    """Free GPUs for up to ``replicas`` replicas, each on one node: the fullest node that has room, so that
    whole nodes stay free for engines that need them.
    """
    chosen: list[Placement] = []
    roomy = sorted((len(free), node) for node, free in floor.free.items() if len(free) >= gpus_per_replica)
    # The fullest node stays the fullest until it has no room left.
    for _, node in roomy:
        while len(chosen) < replicas and len(floor.free[node]) >= gpus_per_replica:
            free = floor.free[node]
            chosen.append(Placement(pool, node, tuple(free[:gpus_per_replica])))
            floor.free[node] = free[gpus_per_replica:]
    return chosen


def where(placements: Iterable[Placement]) -> Mapping[PoolId, list[Placement]]:
    """Placements by pool, in their order."""
    found: dict[PoolId, list[Placement]] = {}
    for placement in placements:
        found.setdefault(placement.pool, []).append(placement)
    return found
