"""One pool as its target, its graph and its pods show it: the `PoolSeen` that decisions are compared with. Pure.

An adapter's own status is an echo of its spec: what serves comes from the graph's status and from the pods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.core.scaling.kubernetes.field_writers import count_writer, count_writer_kind
from agent.core.scaling.kubernetes.workload_pods import WorkerPod
from agent.core.scaling.scaling_types import PoolSeen, ScalingProblem, WriterKind

_GANGS = ("PodCliqueScalingGroup", "LeaderWorkerSet")
"""Kinds whose replica is several pods: pods are not replicas there."""
_GROVE = ("PodClique", "PodCliqueScalingGroup")
"""Kinds of Grove, which has no working way back from 0 replicas."""
_ZEROS_LEFT_OUT = ("Deployment", "StatefulSet", "LeaderWorkerSet")
"""Kinds whose status shows no count of zero; another kind may have no such field at all."""
_RESTARTING = ("Pending", "Restarting")
_ROLLING = ("Pending", "InProgress")


@dataclass(frozen=True, slots=True)
class Counted:
    """What a controller's status says of one pool. ``observed``: the status is about the newest spec.

    ``gang``: a replica is several pods. ``hold``: what is in progress there, so that nothing may be raised.
    ``pods_known``: its pods can be told from others. ``at_least``: the fewest replicas that work there.
    """

    ready: int
    observed: bool
    gang: bool = False
    hold: str = ""
    pods_known: bool = True
    at_least: int = 0


def graph_component(graph: Mapping[str, Any], component: str) -> Counted:
    """A component of a DynamoGraphDeployment. One that the status does not show yet serves nothing.

    Reads both versions: the status has ``components``, in v1alpha1 ``services``.
    """
    status = graph.get("status") or {}
    counts = status.get("components") or status.get("services") or {}
    names = {str(name).lower(): one for name, one in counts.items()}
    one = names.get(component.lower()) or {}
    kind = str(one.get("componentKind", ""))
    # A PodCliqueScalingGroup reports no readyReplicas, others may report no availableReplicas.
    ready = one.get("readyReplicas", one.get("availableReplicas", 0))
    return Counted(
        ready=int(ready or 0),
        observed=_observed(graph.get("metadata") or {}, status),
        gang=kind in _GANGS,
        hold=_graph_hold(status, component) or _updating(one, kind),
        at_least=int(kind in _GROVE),
    )


def _graph_hold(status: Mapping[str, Any], component: str) -> str:
    restart, rolling = status.get("restart") or {}, status.get("rollingUpdate") or {}
    if restart.get("phase") in _RESTARTING:
        return f"restart {restart.get('observedID', '')} is {restart['phase']}"
    updated = [str(one).lower() for one in rolling.get("updatedComponents") or rolling.get("updatedServices") or ()]
    if rolling.get("phase") in _ROLLING and component.lower() not in updated:
        return f"a rolling update is {rolling['phase']}"
    return ""


def workload(item: Mapping[str, Any], kind: str) -> Counted:
    """A Deployment, a StatefulSet, a LeaderWorkerSet or any object that reports as they do.

    One that reports neither ready nor available replicas is counted by ``status.replicas``.
    """
    status = item.get("status") or {}
    ready = status.get("readyReplicas")
    if ready is None:
        has_none = kind in (*_ZEROS_LEFT_OUT, *_GANGS)
        ready = status.get("availableReplicas", 0 if has_none else status.get("replicas", 0))
    return Counted(
        ready=int(ready or 0),
        observed=_observed(item.get("metadata") or {}, status),
        gang=kind in _GANGS,
        hold=_updating(status, kind),
        at_least=int(kind in _GROVE),
    )


def _observed(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether the controller has seen the newest spec; one that reports no generation is taken at its word."""
    seen = status.get("observedGeneration")
    return seen is None or int(seen) >= int(metadata.get("generation", 0))


def _updating(status: Mapping[str, Any], kind: str) -> str:
    """A rollout by the counts of its controller: not all replicas that exist have the newest template.

    A PodCliqueScalingGroup counts a replica as updated only when it is available, and reports its updates.
    """
    gang = kind == "PodCliqueScalingGroup"
    progress = status.get("updateProgress") or status.get("rollingUpdateProgress") or {}
    if gang and progress.get("updateStartedAt") and not progress.get("updateEndedAt"):
        return f"an update that began at {progress['updateStartedAt']} is in progress"
    updated = status.get("updatedReplicas", 0 if kind in _ZEROS_LEFT_OUT else None)
    replicas = status.get("availableReplicas" if gang else "replicas")
    if isinstance(updated, int) and isinstance(replicas, int) and updated < replicas:
        return f"a rollout has updated {updated} of {replicas} replicas"
    return ""


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """``wait_for_capacity_s``: how long pods may stay unschedulable before the decision fails for good.

    ``overwrite``: our count wins over an autoscaler's.
    """

    wait_for_capacity_s: float = 600.0
    overwrite: bool = False


def pool_seen(
    pool: str,
    item: Mapping[str, Any],
    counted: Counted,
    pods: Sequence[WorkerPod],
    now_s: float,
    *,
    rival: str = "",
    gpus_idle: bool = True,
    raised_s: float = 0.0,
    settings: ViewSettings | None = None,
) -> PoolSeen:
    """One pool now.

    ``item``: the object that has the count, with its resource version. ``pods``: the pool's own. ``now_s``: seconds
    since the epoch. ``gpus_idle``: whether the GPUs of pods that left are idle by telemetry. ``raised_s``: when its
    count was raised last, on the same clock: a pod waits for capacity from then on at the earliest.
    """
    settings = settings or ViewSettings()
    metadata = item.get("metadata") or {}
    found = (item.get("spec") or {}).get("replicas")
    wanted = found if isinstance(found, int) else None
    if rival and not settings.overwrite:
        problem: ScalingProblem | None = ScalingProblem(
            f"{pool}: {rival} scales the same target: remove it, or set who wins"
        )
        wanted = None
    else:
        placed = [one for one in pods if not one.unschedulable or one.terminating]
        # Enough have a place: the others are about to be deleted.
        wait = pods if wanted is None or _room(counted, pods) < wanted else placed
        problem = pods_problem(pool, wait, now_s, settings.wait_for_capacity_s, raised_s=raised_s)
    return PoolSeen(
        wanted=wanted,
        ready=_serving(counted, pods, found if isinstance(found, int) else 0),
        leaving=_leaving(counted, pods, found if isinstance(found, int) else 0),
        idle=gpus_idle,
        version=str(metadata.get("resourceVersion", "")),
        writer=rival or count_writer(metadata.get("managedFields")),
        writer_kind=WriterKind.AUTOSCALER if rival else count_writer_kind(metadata.get("managedFields")),
        rival=bool(rival),
        hold=counted.hold,
        at_least=counted.at_least,
        problem=problem,
        room=None if problem is None or problem.retryable else _room(counted, pods),
    )


def _serving(counted: Counted, pods: Sequence[WorkerPod], wanted: int) -> int:
    """Replicas that surely serve: a status of an older spec may count pods that have begun to leave."""
    ready = counted.ready
    if not counted.gang:
        ready = min(ready, sum(1 for one in pods if one.ready and not one.terminating))
    return ready if counted.observed else min(ready, max(wanted - 1, 0))


def _leaving(counted: Counted, pods: Sequence[WorkerPod], wanted: int) -> int:
    """Replicas that leave or will; for a gang, its pods that leave, and replicas that are more than wanted."""
    terminating = sum(1 for one in pods if one.terminating)
    present = counted.ready if counted.gang else len(pods) - terminating
    return terminating + max(0, present - wanted)


def _room(counted: Counted, pods: Sequence[WorkerPod]) -> int:
    """Replicas that found a place; of a gang, those that serve."""
    return counted.ready if counted.gang else sum(1 for one in pods if not one.terminating and not one.unschedulable)


def pods_problem(
    pool: str, pods: Sequence[WorkerPod], now_s: float, wait_for_capacity_s: float, *, raised_s: float = 0.0
) -> ScalingProblem | None:
    """Why pods of a pool do not come to serve; None where none is stuck. Pods that leave do not count.

    ``raised_s``: as for `pool_seen`.
    """
    staying = [one for one in pods if not one.terminating]
    waiting = [one for one in staying if one.unschedulable]
    if waiting:
        since = [one.unschedulable_since_s for one in waiting if one.unschedulable_since_s is not None]
        waited_s = now_s - max(min(since), raised_s) if since else 0.0
        what = (
            f"{len(waiting)} {'pod' if len(waiting) == 1 else 'pods'} cannot be scheduled: {waiting[0].unschedulable}"
        )
        if waited_s >= wait_for_capacity_s:
            return ScalingProblem(f"{pool}: insufficient_capacity: {what}", retryable=False)
        return ScalingProblem(f"{pool}: {what}")
    for one in staying:
        if one.stuck:
            return ScalingProblem(f"{pool}: pod {one.name}: {one.stuck}")
    return None
