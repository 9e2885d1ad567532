"""Maps device ids from the kubelet to the physical GPUs that carry a power limit. Pure.

Owns every form of device id that NVIDIA's device plugin uses: whole GPUs, time-sliced replicas, MIG instances. An
id that names no GPU of this node is reported, never matched to a similar one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_REPLICA = "::"
_OLD_MIG = re.compile(r"MIG-(GPU-[0-9a-fA-F-]+)/\d+/\d+")


@dataclass(frozen=True, slots=True)
class PodRef:
    """A pod by name; the kubelet's API does not report its uid."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """One device that the kubelet has given to a container."""

    pod: PodRef
    device: str
    container: str = ""
    """The container's name in its pod."""


def physical_gpu(device: str, gpus: frozenset[str], mig_parents: Mapping[str, str]) -> str | None:
    """The GPU behind a device id, or None. ``mig_parents``: GPU by MIG instance's UUID."""
    name = device.partition(_REPLICA)[0]
    if name in gpus:
        return name
    if name in mig_parents:
        return mig_parents[name]
    old = _OLD_MIG.fullmatch(name)
    if old and old.group(1) in gpus:
        return old.group(1)
    return None
