"""From the text of ``/proc/PID/cgroup`` to the pod and the container that the process belongs to.

Owns the reading of every layout in use: cgroup v1, v2 and hybrid; systemd and cgroupfs; containerd, CRI-O, Docker; kind
and minikube; private cgroup namespaces; static pods. Must never guess: a pod id is taken only from a whole path segment
that the kubelet writes, and two different pods in one text are refused (a container may name its own sub-groups as it
likes). Reading files is not done here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_HEX = "[0-9a-f]"
_DASHED = f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"
_UNDERSCORED = f"{_HEX}{{8}}_{_HEX}{{4}}_{_HEX}{{4}}_{_HEX}{{4}}_{_HEX}{{12}}"
_STATIC = f"{_HEX}{{32}}"
"""A static pod's id: the hash of its manifest, without dashes."""

# A kubelet writes "_" for "-" under systemd, whose slices nest at dashes; some runtimes and images do as they like.
_POD_ID = f"{_DASHED}|{_UNDERSCORED}|{_STATIC}"
_SYSTEMD_POD = re.compile(rf"(?:.*-)?kubepods(?:-burstable|-besteffort)?-pod({_POD_ID})\.slice")
_CGROUPFS_POD = re.compile(rf"pod({_POD_ID})")
_CONTAINER = re.compile(rf"(?:(?:cri-containerd|crio|docker|libpod|cri-dockerd)[-:])?({_HEX}{{64}})(?:\.scope)?")
_MONITOR = re.compile(rf"(?:crio|libpod)-conmon-{_HEX}{{64}}(?:\.scope)?")
_LINE = re.compile(r"\d+:[^:]*:(.*)")
_COLON_RUNTIME = re.compile(r"(.*\.slice):(.+)")
_DELETED = " (deleted)"


class CgroupFailure(StrEnum):
    """Why a text names no pod."""

    NO_POD = "no_pod"
    """No line has a pod's segment: a process of the host, or of a container that shows no pod."""
    CONFLICT = "conflict"
    """Two different pods are named. Refused."""


@dataclass(frozen=True, slots=True)
class CgroupIdentity:
    """What one text says. ``container_id`` may be known without a pod (a private namespace hides the pod)."""

    pod_uid: str | None = None
    container_id: str | None = None
    static_pod: bool = False
    """The id is a manifest's hash: compare it with ``kubernetes.io/config.hash``, not with ``metadata.uid``."""
    monitor: bool = False
    """The process is the runtime's monitor (conmon), not the workload: never attribute GPU use to it."""
    failure: CgroupFailure | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Seen:
    pods: tuple[str, ...] = ()
    container_id: str | None = None
    monitor: bool = False


def identify(text: str) -> CgroupIdentity:
    """Read all lines of ``text`` (the file's content, or bare cgroup paths, one a line)."""
    seen = [_read_path(_path_of(line)) for line in text.splitlines() if line.strip()]
    pods = _distinct(pod for line in seen for pod in line.pods)
    if len(pods) > 1:
        return CgroupIdentity(failure=CgroupFailure.CONFLICT, detail="names the pods " + " and ".join(pods))
    if not pods:
        containers = _distinct(line.container_id for line in seen)
        container = containers[0] if len(containers) == 1 else None
        return CgroupIdentity(container_id=container, failure=CgroupFailure.NO_POD, detail="no line names a pod")
    inside = [line for line in seen if line.pods]
    monitor = any(line.monitor for line in inside)
    containers = _distinct(line.container_id for line in inside)
    container = containers[0] if len(containers) == 1 and not monitor else None
    return CgroupIdentity(pods[0], container, static_pod="-" not in pods[0], monitor=monitor)


def _path_of(line: str) -> str:
    line = line.strip().removesuffix(_DELETED)
    match = _LINE.fullmatch(line)
    return match.group(1) if match else line


def _segments(path: str) -> list[str]:
    segments: list[str] = []
    for segment in path.split("/"):
        # containerd set to systemd under a kubelet that is not: "…-podUID.slice:cri-containerd:ID" in one segment.
        match = _COLON_RUNTIME.fullmatch(segment)
        segments.extend(match.groups() if match else [segment])
    return [segment for segment in segments if segment]


def _read_path(path: str) -> _Seen:
    segments = _segments(path)
    pods = [(index, pod) for index, segment in enumerate(segments) if (pod := _pod_of(segment))]
    if not pods:
        return _Seen(container_id=_lone_container(segments))
    child = segments[pods[0][0] + 1] if pods[0][0] + 1 < len(segments) else ""
    container = _CONTAINER.fullmatch(child)
    return _Seen(
        pods=tuple(pod for _, pod in pods),
        container_id=container.group(1) if container else None,
        monitor=_MONITOR.fullmatch(child) is not None,
    )


def _pod_of(segment: str) -> str | None:
    match = _SYSTEMD_POD.fullmatch(segment) or _CGROUPFS_POD.fullmatch(segment)
    return match.group(1).replace("_", "-") if match else None


def _lone_container(segments: list[str]) -> str | None:
    """The last segment's container id; CRI-O and podman put the workload one level below it, in ``container``."""
    if segments[-1:] == ["container"]:
        segments = segments[:-1]
    match = _CONTAINER.fullmatch(segments[-1]) if segments else None
    return match.group(1) if match else None


def _distinct(values: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value is not None))
