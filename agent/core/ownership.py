"""Which pod owns which GPU, from the kubelet's assignments and the processes, and what holds if they differ. Pure.

Owns the joining of assignments, processes and pods. The kubelet's assignment comes first, because it exists before
any process starts; processes are the cross-check, and the only source without a kubelet. A GPU for which the two name
different pods is a conflict: it is reported, and the kubelet's pod remains the owner. A missing answer never means
that a GPU is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.core.cgroup import CgroupIdentity
from agent.core.devices import Assignment, PodRef, physical_gpu

OWNERS_FIRST_S = 30.0
"""How long a node that no planner knows waits for the owners of its GPUs before it reports without them."""


@dataclass(frozen=True, slots=True)
class Pod:
    """The parts of a pod that the agent needs. ``config_hash``: the id in a static pod's groups instead of the uid."""

    uid: str
    ref: PodRef
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    containers: Mapping[str, str] = field(default_factory=dict)
    """Names by container id."""
    config_hash: str = ""
    terminating: bool = False
    finished: bool = False
    """Succeeded or failed: holds no GPU any more."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process at the time it was read. (pid, start) is its identity, never the pid alone."""

    pid: int
    start_ticks: int
    cgroup: CgroupIdentity


@dataclass(frozen=True, slots=True)
class GpuPods:
    """The pods on each GPU, and conflicts between the sources."""

    pods: Mapping[str, tuple[PodRef, ...]]
    conflicts: Mapping[str, str] = field(default_factory=dict)
    unknown_devices: tuple[str, ...] = ()
    containers: Mapping[str, str] = field(default_factory=dict)
    """By GPU: the name of the container of its first pod. A GPU whose container has no known name is left out."""


def pod_of_process(identity: CgroupIdentity, pods: Iterable[Pod]) -> Pod | None:
    """The pod behind a process: by uid, by a static pod's hash, or by container id where no pod id is visible."""
    if identity.monitor:
        return None
    for pod in pods:
        if identity.pod_uid is not None:
            key = pod.config_hash if identity.static_pod else pod.uid
            if key == identity.pod_uid:
                return pod
        elif identity.container_id is not None and identity.container_id in pod.containers:
            return pod
    return None


def join(
    gpus: frozenset[str],
    mig_parents: Mapping[str, str],
    assigned: Iterable[Assignment] | None,
    running: Mapping[str, Iterable[CgroupIdentity]],
    pods: Iterable[Pod],
) -> GpuPods:
    """Pods by GPU. ``assigned`` None: there is no kubelet. ``running``: identities of the processes on each GPU."""
    everyone = list(pods)
    on_gpu = {
        gpu: [(pod, each) for each in identities if (pod := pod_of_process(each, everyone))]
        for gpu, identities in running.items()
    }
    by_process = {gpu: _distinct(pod.ref for pod, _ in seen) for gpu, seen in on_gpu.items()}
    if assigned is None:
        first = {gpu: seen[0] for gpu, seen in on_gpu.items() if seen}
        names = {gpu: pod.containers.get(each.container_id or "", "") for gpu, (pod, each) in first.items()}
        return GpuPods({gpu: refs for gpu, refs in by_process.items() if refs}, containers=_known(names))
    found: dict[str, tuple[PodRef, ...]] = {}
    names = {}
    strangers = []
    for one in assigned:
        gpu = physical_gpu(one.device, gpus, mig_parents)
        if gpu is not None:
            found[gpu] = _distinct((*found.get(gpu, ()), one.pod))
            names.setdefault(gpu, one.container)
        elif one.device.startswith(("GPU-", "MIG-")):
            strangers.append(one.device)
    conflicts = {}
    for gpu, refs in by_process.items():
        foreign = [ref for ref in refs if ref not in found.get(gpu, ())]
        if foreign:
            strange = ", ".join(f"{ref.namespace}/{ref.name}" for ref in foreign)
            conflicts[gpu] = f"processes of {strange} run on it, to which the kubelet did not assign it"
            found[gpu] = _distinct((*found.get(gpu, ()), *foreign))
    return GpuPods(found, conflicts, tuple(strangers), _known(names))


def _known(names: Mapping[str, str]) -> Mapping[str, str]:
    return {gpu: name for gpu, name in names.items() if name}


def _distinct(refs: Iterable[PodRef]) -> tuple[PodRef, ...]:
    return tuple(dict.fromkeys(refs))
