"""The GPUs of a cluster, from the labels of its nodes and what they can allocate. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from planner.profiler.requests.generated.graph_deployment import GPU_RESOURCE
from planner.profiler.requests.power_request import PowerRequest

PRODUCT_LABEL = "nvidia.com/gpu.product"
"""Of NVIDIA's GPU feature discovery, as in ``NVIDIA-H100-80GB-HBM3``."""
WITH_SOCKET = frozenset({"h100", "a100", "v100"})
SXM_ONLY = frozenset({"b300", "b200", "h200"})
PLAIN = frozenset({"gb200", "gb10", "a30", "l40s", "l40", "l4", "t4"})


@dataclass(frozen=True, slots=True)
class ClusterGpus:
    """``most``: on one node; ``total``: on all that take new pods; ``gpu_type``: of most of them, None: unknown."""

    most: int
    total: int
    gpu_type: str | None


def cluster_gpus(nodes: Iterable[Mapping[str, Any]]) -> ClusterGpus:
    """What nodes that are ready and not cordoned can allocate; MIG devices and other vendors do not count."""
    counts, types = [0], Counter[str]()
    for node in nodes:
        status = node.get("status") or {}
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())
        if not ready or (node.get("spec") or {}).get("unschedulable"):
            continue
        count = int((status.get("allocatable") or {}).get(GPU_RESOURCE, 0))
        counts.append(count)
        found = gpu_type((node["metadata"].get("labels") or {}).get(PRODUCT_LABEL, ""))
        if found is not None and count:
            types[found] += count
    # Where two types are as many, the name decides, so that every step sees the same.
    name = min(types, key=lambda each: (-types[each], each)) if types else None
    return ClusterGpus(max(counts), sum(counts), name)


def gpu_type(product: str) -> str | None:
    """A request's ``gpuSku`` for the label of a node; None where it is not known."""
    words = re.split(r"[-_ ]", product.lower())
    if any(word.startswith("mig") for word in words):
        return None
    for word in words:
        if word in SXM_ONLY:
            return f"{word}_sxm"
        if word in WITH_SOCKET:
            return f"{word}_{'pcie' if 'pcie' in words else 'sxm'}"
        if word in PLAIN:
            return word
    return None


def with_found(request: PowerRequest, gpus: ClusterGpus) -> PowerRequest:
    """The request with type and number of GPUs as found, where it names none."""
    hardware = request.hardware
    known = replace(
        hardware,
        gpu_type=hardware.gpu_type or gpus.gpu_type,
        total_gpus=hardware.total_gpus if hardware.total_gpus is not None or not gpus.total else gpus.total,
    )
    offline = request.offline
    if offline is not None and offline.system is None:
        offline = replace(offline, system=known.gpu_type)
    return replace(request, hardware=known, offline=offline)
