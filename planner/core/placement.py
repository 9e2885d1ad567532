"""Which GPUs a pool holds and which it is about to get: the former from telemetry, the latter chosen here.

Owns the choice of free GPUs for new replicas. Must never take a GPU that a pod holds, and never revise a choice while
its watts are being reserved: a choice stands until the GPU is taken or the replica is no longer wanted.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from planner.core.power.cap_changes import answers
from planner.core.power.site_state import PowerState
from planner.core.state import PlannerState
from planner.domain.config import SiteConfig
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId, SiteId
from planner.domain.observation import NodeObservation
from planner.domain.plan import Placement

Holder = tuple[DeploymentId, PoolId]


@dataclass(frozen=True, slots=True)
class GpuInventory:
    """A site's healthy GPUs as last reported. Choosing GPUs gives a new inventory in which they are not free."""

    held: Mapping[Holder, Sequence[GpuId]]
    """GPUs of each pool's living replicas."""
    free: Mapping[NodeId, Sequence[GpuId]]
    pods: Mapping[Holder, frozenset[tuple[GpuId, str]]] = field(default_factory=dict)
    """The GPUs in ``held`` with the names of the pods that hold them."""

    def without(self, placements: Sequence[Placement]) -> GpuInventory:
        """The inventory in which the GPUs of ``placements`` are not free."""
        if not placements:
            return self
        free = dict(self.free)
        for placement in placements:
            free[placement.node] = [gpu for gpu in free[placement.node] if gpu not in placement.gpus]
        return GpuInventory(self.held, free, self.pods)

    def without_gpus(self, gpus: Container[GpuId]) -> GpuInventory:
        """The inventory in which ``gpus`` are not free."""
        free = {node: [gpu for gpu in each if gpu not in gpus] for node, each in self.free.items()}
        return GpuInventory(self.held, {node: each for node, each in free.items() if each}, self.pods)


def powered(state: PlannerState, site: SiteId) -> bool:
    """Whether the site's GPUs are known. While they are not, only counts can be decided, not watts."""
    power = state.power.get(site)
    return power is not None and bool(power.nodes)


def inventory_of(power: PowerState, config: SiteConfig, now_s: float) -> GpuInventory:
    """The site's GPUs as last reported. The pods of a silent node are assumed to be still running."""
    silent = {name for name, node in power.nodes.items() if not answers(node, config, now_s)}
    return survey([node.seen for node in power.nodes.values() if node.seen is not None], silent)


def survey(nodes: Iterable[NodeObservation], silent: Container[NodeId] = ()) -> GpuInventory:
    """Sort a site's healthy GPUs by who holds them.

    A node in ``silent`` does not answer now: its pods are assumed to be still running, and nothing new is placed there.
    """
    held: dict[Holder, list[GpuId]] = {}
    pods: dict[Holder, set[tuple[GpuId, str]]] = {}
    free: dict[NodeId, list[GpuId]] = {}
    for node in nodes:
        unused = []
        for gpu in node.gpus.values():
            if not gpu.healthy:
                continue
            if gpu.deployment is not None and gpu.pool is not None:
                if not gpu.terminating:
                    held.setdefault((gpu.deployment, gpu.pool), []).append(gpu.gpu)
                    pods.setdefault((gpu.deployment, gpu.pool), set()).add((gpu.gpu, gpu.worker or ""))
            elif gpu.deployment is None and gpu.pool is None and gpu.worker is None:
                unused.append(gpu.gpu)  # otherwise a pod that is not ours holds it
        if unused and node.node not in silent:
            free[node.node] = unused
    return GpuInventory(held, free, {holder: frozenset(each) for holder, each in pods.items()})


def keep(inventory: GpuInventory, chosen: Iterable[Placement], replicas: int) -> list[Placement]:
    """At most ``replicas`` of the earlier choices whose GPUs are still free."""
    kept: list[Placement] = []
    taken: set[GpuId] = set()
    for placement in chosen:
        free = inventory.free.get(placement.node, ())
        if len(kept) < replicas and all(gpu in free and gpu not in taken for gpu in placement.gpus):
            taken.update(placement.gpus)
            kept.append(placement)
    return kept


def choose(inventory: GpuInventory, pool: PoolId, gpus_per_replica: int, replicas: int) -> list[Placement]:
    """Free GPUs for up to ``replicas`` replicas, each on one node: the fullest node that has room, so that
    whole nodes stay free for engines that need them.
    """
    chosen: list[Placement] = []
    roomy = sorted((len(free), node) for node, free in inventory.free.items() if len(free) >= gpus_per_replica)
    # The fullest node stays the fullest until it has no room left.
    for _, node in roomy:
        free = inventory.free[node]
        for start in range(0, len(free) - gpus_per_replica + 1, gpus_per_replica):
            if len(chosen) >= replicas:
                return chosen
            chosen.append(Placement(pool, node, tuple(free[start : start + gpus_per_replica])))
    return chosen


def where(placements: Iterable[Placement]) -> Mapping[PoolId, list[Placement]]:
    """Placements by pool, in their order."""
    found: dict[PoolId, list[Placement]] = {}
    for placement in placements:
        found.setdefault(placement.pool, []).append(placement)
    return found
