"""Whether the GPUs of pods that left are idle, by the telemetry of their nodes. Pure.

A pod that is gone from the API server may have held GPUs a moment before; only its node's agent sees that nothing
holds them any more. What was not reported since the pod left is not known, and never counts as idle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

SETTLE_S = 30.0
"""After a restart pods may have left unseen: so long every node that reports has done so, at the agents' heartbeats."""
SILENT_S = 900.0
"""Three of the longest heartbeats that an agent can be set to: what a silent node reported last counts so long."""


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


class PodPlace(NamedTuple):
    """A pod's name, and its node; a StatefulSet's pods come back under their names. ``node`` empty: it has none."""

    name: str
    node: str


@dataclass(frozen=True, slots=True)
class LeftPod:
    """A pod that is gone since ``gone_s``. ``may_hold_gpus``: as `WorkerPod` has it."""

    gone_s: float
    may_hold_gpus: bool = True


@dataclass(frozen=True, slots=True)
class PoolGpus:
    """Which GPUs are a pool's: those of its pods, and by label those of deployment ``graph`` and pool ``pool``.

    ``pods``: the node of each pod that is there, by name.
    """

    namespace: str
    pods: Mapping[str, str]
    graph: str = ""
    pool: str = ""

    def left(self, holder: GpuHolder, node: str) -> PodPlace | None:
        """The pod that holds a GPU of ``node``, where it is ours and not there any more.

        It may have left before this process began: only its labels show that it was ours.
        """
        namespace, _, name = holder.pod.partition("/")
        ours = self.graph and namespace == self.namespace and self.pods.get(name) != node
        if not ours or holder.deployment != self.graph or holder.pool.lower() != self.pool:
            return None
        return PodPlace(name, node)


@dataclass(frozen=True, slots=True)
class Release:
    """``idle``: whether all GPUs of what left are idle; None: not known.

    ``waiting``: pods that are not released yet. ``nodes``: those whose next report may change the answer. ``lost``:
    nodes that are silent for so long that their pods are no longer waited for; nothing says that their GPUs are idle.
    """

    idle: bool | None
    waiting: Mapping[PodPlace, LeftPod]
    nodes: frozenset[str]
    lost: frozenset[str] = frozenset()


def release(own: PoolGpus, left: Mapping[PodPlace, LeftPod], nodes: Mapping[str, GpuHolders], now_s: float) -> Release:
    """What became of the GPUs of pods that left. ``nodes``: by name. All times are on one clock."""
    nodes = {name: one for name, one in nodes.items() if now_s - one.received_s <= SILENT_S}
    by_label = {
        place: LeftPod(report.received_s)
        for node, report in nodes.items()
        for holder in report.holders
        if (place := own.left(holder, node)) is not None
    }
    waiting: dict[PodPlace, LeftPod] = {}
    held: set[str] = set()
    unknown: set[str] = set()
    lost: set[str] = set()
    for place, pod in {**by_label, **left}.items():
        report = nodes.get(place.node)
        named = report is not None and any(one.pod == f"{own.namespace}/{place.name}" for one in report.holders)
        if not place.node or not (pod.may_hold_gpus or named):
            continue
        if named and own.pods.get(place.name) != place.node:
            held.add(place.node)
        elif report is not None and report.received_s >= pod.gone_s:
            # Idle, or held by a pod that has come back under its name.
            continue
        elif now_s - pod.gone_s > SILENT_S:
            lost.add(place.node)
            continue
        else:
            unknown.add(place.node)
        waiting[place] = pod
    if held:
        idle: bool | None = False
    elif unknown or lost or not nodes:
        idle = None
    else:
        idle = True
    return Release(idle, waiting, frozenset(held | unknown), frozenset(lost))
