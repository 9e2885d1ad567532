"""Pods of a pool as values: which serve, which leave, and why others do not start. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.core.pod_limits import ANNOTATION
from agent.core.scaling.kubernetes.field_writers import is_own

_FINISHED = ("Succeeded", "Failed")
_STUCK = (
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)


@dataclass(frozen=True, slots=True)
class WorkerPod:
    """One pod. ``unschedulable`` and ``stuck``: the reason in Kubernetes' own words, else empty.

    ``may_hold_gpus``: whether it asks for a device or a resource claim, of any vendor. ``power_limit``: its annotation
    as it stands, empty where it has none; ``own_power_limit``: whether we wrote it.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    node: str = ""
    ready: bool = False
    terminating: bool = False
    finished: bool = False
    unschedulable: str = ""
    unschedulable_since_s: float | None = None
    stuck: str = ""
    may_hold_gpus: bool = True
    uid: str = ""
    power_limit: str = ""
    own_power_limit: bool = False


def worker_pod(item: Mapping[str, Any]) -> WorkerPod:
    """A pod object as a value; times are seconds since the epoch."""
    metadata, status = item["metadata"], item.get("status") or {}
    conditions = {one.get("type"): one for one in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    limit = str((metadata.get("annotations") or {}).get(ANNOTATION, ""))
    refused = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return WorkerPod(
        name=str(metadata["name"]),
        labels={key: str(value) for key, value in (metadata.get("labels") or {}).items()},
        node=str((item.get("spec") or {}).get("nodeName") or ""),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        terminating="deletionTimestamp" in metadata,
        finished=status.get("phase") in _FINISHED,
        unschedulable=str(scheduled.get("message") or "no reason given") if refused else "",
        unschedulable_since_s=_time(scheduled.get("lastTransitionTime")) if refused else None,
        stuck=_stuck(status),
        may_hold_gpus=_asks_for_devices(item.get("spec") or {}),
        uid=str(metadata.get("uid", "")),
        power_limit=limit,
        own_power_limit=bool(limit) and is_own(metadata.get("managedFields"), ("metadata", "annotations", ANNOTATION)),
    )


def _asks_for_devices(spec: Mapping[str, Any]) -> bool:
    """Only devices have a vendor's domain in their name, as nvidia.com/gpu, nvidia.com/mig-1g.5gb, amd.com/gpu."""
    asked = [
        name
        for one in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
        for amounts in (one.get("resources") or {}).values()
        if isinstance(amounts, Mapping)
        for name in amounts
    ]
    return bool(spec.get("resourceClaims")) or any("/" in str(name) for name in asked)


def _stuck(status: Mapping[str, Any]) -> str:
    for one in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _STUCK:
            restarts = int(one.get("restartCount") or 0)
            after = f" after {restarts} restarts" if restarts else ""
            return f"container {one.get('name', '')}: {waiting['reason']}{after}"
    return ""


def _time(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def of_labels(pods: Sequence[WorkerPod], labels: Mapping[str, str]) -> tuple[WorkerPod, ...]:
    """The pods that carry all of these labels and have not finished; none for no labels at all."""
    if not labels:
        return ()
    return tuple(one for one in pods if not one.finished and labels.items() <= one.labels.items())
