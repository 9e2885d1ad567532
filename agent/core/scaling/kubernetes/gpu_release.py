"""Whether the GPUs of pods that left are idle, by the telemetry of their nodes. Pure.

A pod that is gone from the API server may have held GPUs a moment before; only its node's agent sees that nothing
holds them any more. What was not reported since the pod left is not known, and never counts as idle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

SETTLE_S = 30.0
"""After a restart pods may have left unseen: so long every node that reports has done so, at the agents' heartbeats."""


@dataclass(frozen=True, slots=True)
class GpuHolder:
    """Who holds a GPU. ``pod``: as NAMESPACE/NAME; ``deployment`` and ``pool``: by the pod's labels."""

    pod: str
    deployment: str = ""
    pool: str = ""


@dataclass(frozen=True, slots=True)
class GpuHolders:
    """A node's newest telemetry: the holders of its GPUs, and when it was received."""

    holders: tuple[GpuHolder, ...]
    received_s: float


@dataclass(frozen=True, slots=True)
class LeftPod:
    """A pod that is gone since ``gone_s``. ``node`` empty: it never had one, and so no GPU."""

    node: str
    gone_s: float


@dataclass(frozen=True, slots=True)
class PoolGpus:
    """Which GPUs are a pool's: those of its pods, and by label those of deployment ``graph`` and pool ``pool``."""

    namespace: str
    pods: Collection[str]
    graph: str = ""
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """``idle``: whether all GPUs of what left are idle; None: not known.

    ``waiting``: pods that are not released yet. ``nodes``: those whose next report may change the answer.
    """

    idle: bool | None
    waiting: Mapping[str, LeftPod]
    nodes: frozenset[str]


def release(own: PoolGpus, left: Mapping[str, LeftPod], nodes: Mapping[str, GpuHolders]) -> Release:
    """What became of the GPUs of pods that left. ``left``: by name; ``nodes``: by name."""
    waiting: dict[str, LeftPod] = {}
    held: set[str] = set()
    unknown: set[str] = set()
    for name, pod in left.items():
        report = nodes.get(pod.node)
        if not pod.node:
            continue
        if report is None or report.received_s < pod.gone_s:
            unknown.add(pod.node)
        elif any(holder.pod == f"{own.namespace}/{name}" for holder in report.holders):
            held.add(pod.node)
        else:
            continue
        waiting[name] = pod
    current = {f"{own.namespace}/{name}" for name in own.pods}
    for node, report in nodes.items():
        if any(_was_ours(holder, own, current) for holder in report.holders):
            held.add(node)
    if held:
        idle: bool | None = False
    elif unknown or not nodes:
        idle = None
    else:
        idle = True
    return Release(idle, waiting, frozenset(held | unknown))


def _was_ours(holder: GpuHolder, own: PoolGpus, current: Collection[str]) -> bool:
    """Whether a pod that is gone still holds a GPU, by its labels: it may have left before this process began."""
    if not own.graph or holder.pod in current or not holder.pod.startswith(f"{own.namespace}/"):
        return False
    return holder.deployment == own.graph and holder.pool.lower() == own.pool
