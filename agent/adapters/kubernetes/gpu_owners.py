"""Owners of this node's GPUs from Kubernetes: the kubelet's assignments, the processes, and the pods behind both.

Joins three sources, each of which may be absent. A source that failed is never treated as empty: while pods or
assignments cannot be read, the owners are unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from agent.adapters.kubernetes.list_watch import ListWatch
from agent.adapters.pod_resources.kubelet import PodResources
from agent.core.cgroup import CgroupIdentity
from agent.core.devices import Assignment, PodRef
from agent.core.ownership import GpuPods, Pod, join
from agent.ports import GpuInfo, GpuOwner, OwnersUnknownError, Processes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodLabels:
    """Which labels of a pod name its deployment, pool and role; the defaults are Dynamo's."""

    deployment: str = "nvidia.com/dynamo-graph-deployment-name"
    pool: str = "nvidia.com/dynamo-component"
    role: str = "nvidia.com/dynamo-sub-component-type"


@dataclass(frozen=True, slots=True)
class NodeGpus:
    """The agent's GPUs and the processes on them, needed to interpret device ids and process ids."""

    infos: Mapping[str, GpuInfo] = field(default_factory=dict)
    pids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodePods:
    """Pods by GPU, and conflicts between the sources by GPU."""

    pods: Mapping[str, tuple[Pod, ...]]
    conflicts: Mapping[str, str]
    containers: Mapping[str, str] = field(default_factory=dict)
    """By GPU: the name of the container of its first pod, where known."""


class KubernetesOwners:
    """A ``GpuOwners``. ``gpus`` returns what is on the node now; set it before the first call."""

    def __init__(
        self,
        pods: ListWatch[Pod],
        *,
        pod_resources: PodResources | None = None,
        processes: Processes | None = None,
        labels: PodLabels | None = None,
    ) -> None:
        self.gpus: Callable[[], NodeGpus] = NodeGpus
        self._pods = pods
        self._pod_resources = pod_resources
        self._processes = processes
        self._labels = labels or PodLabels()
        self._kubelet_seen = False
        self._held: Mapping[PodRef, Pod] = {}
        self._logged: set[str] = set()

    async def owners(self) -> Mapping[str, GpuOwner]:
        """The first pod of each GPU. Raises OwnersUnknownError."""
        found = await self.node_pods()
        names = found.containers
        return {gpu: owner_of(pods[0], self._labels, names.get(gpu, "")) for gpu, pods in found.pods.items()}

    async def node_pods(self) -> NodePods:
        """All pods on each GPU. Raises OwnersUnknownError."""
        items = self._pods.items
        if items is None:
            raise OwnersUnknownError(f"pods not listed yet: {self._pods.last_error or 'waiting for the API server'}")
        live = {**self._vanished(items.values()), **{pod.ref: pod for pod in items.values() if not pod.finished}}
        gpus = self.gpus()
        assigned = await self._assigned()
        running = await asyncio.to_thread(self._running, gpus.pids)
        found = join(frozenset(gpus.infos), _mig_parents(gpus.infos), assigned, running, live.values())
        self._log_conflicts(found)
        pods = {gpu: _known(refs, live) for gpu, refs in found.pods.items() if refs}
        self._held = {pod.ref: pod for each in pods.values() for pod in each if pod.uid}
        return NodePods(pods, found.conflicts, found.containers)

    def _vanished(self, listed: Iterable[Pod]) -> dict[PodRef, Pod]:
        """The pods that held GPUs at the last look and are not listed any more, as they were then.

        A pod that was deleted by force may still run: it is ours as long as the kubelet or a process shows it.
        """
        refs = {pod.ref for pod in listed}
        return {ref: replace(pod, terminating=True) for ref, pod in self._held.items() if ref not in refs}

    async def _assigned(self) -> list[Assignment] | None:
        """None without a kubelet. A kubelet that was present before and is gone now is a failure, not an absence."""
        if self._pod_resources is None or not (self._kubelet_seen or self._pod_resources.present()):
            return None
        self._kubelet_seen = True
        return await self._pod_resources.list()

    def _running(self, pids: Mapping[str, tuple[int, ...]]) -> dict[str, list[CgroupIdentity]]:
        if self._processes is None:
            return {}
        table = self._processes
        found_processes = {gpu: [table.process(pid) for pid in found] for gpu, found in pids.items()}
        return {
            gpu: [process.cgroup for process in found if process is not None] for gpu, found in found_processes.items()
        }

    def _log_conflicts(self, found: GpuPods) -> None:
        """Log each new conflict and each unknown device once."""
        news = {f"GPU {gpu}: {why}" for gpu, why in found.conflicts.items()}
        news |= {f"the kubelet assigned {device}, which is not a GPU of this node" for device in found.unknown_devices}
        for line in sorted(news - self._logged):
            log.warning("%s", line)
        self._logged = news


def owner_of(pod: Pod, labels: PodLabels, container: str = "") -> GpuOwner:
    """A pod in the wire's terms: the deployment is Dynamo's namespace, ``{namespace}-{graph deployment}``."""
    graph = pod.labels.get(labels.deployment, "")
    role = pod.labels.get(labels.role, "")
    return GpuOwner(
        deployment=f"{pod.ref.namespace}-{graph}" if graph else "",
        pool=pod.labels.get(labels.pool, "").lower(),
        role=role if role in ("prefill", "decode") else ("aggregated" if graph else ""),
        worker=pod.ref.name,
        pod=f"{pod.ref.namespace}/{pod.ref.name}",
        terminating=pod.terminating,
        container=container,
    )


def _known(refs: tuple[PodRef, ...], live: Mapping[PodRef, Pod]) -> tuple[Pod, ...]:
    """Pods that the watch does not show still hold their GPU according to the kubelet.

    They count as leaving: one that was deleted by force before this process began has no labels to tell whose it is.
    """
    return tuple(live.get(ref) or Pod(uid="", ref=ref, terminating=True) for ref in refs)


def _mig_parents(infos: Mapping[str, GpuInfo]) -> dict[str, str]:
    return {instance: gpu for gpu, info in infos.items() for instance in info.mig_instances}
