"""This node's pods, as the agent needs them: uid, annotations, containers, and whether they still hold a GPU.

Parses pod objects and drops everything that is not needed at once, because a node has hundreds of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.adapters.kubernetes.api import KubernetesApi
from agent.adapters.kubernetes.list_watch import ListWatch, WatchTiming
from agent.core.devices import PodRef
from agent.core.ownership import Pod

PODS = "/api/v1/pods"
KEPT_ANNOTATIONS = ("dynamo.nvidia.com/", "wattscale.")
CONFIG_HASH = "kubernetes.io/config.hash"
FINISHED = ("Succeeded", "Failed")


def read_pod(item: Mapping[str, Any]) -> Pod:
    """A pod object as a value."""
    metadata, status = item.get("metadata", {}), item.get("status", {})
    annotations = metadata.get("annotations") or {}
    statuses = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    containers = {str(each.get("containerID", "")).rpartition("//")[2]: str(each.get("name", "")) for each in statuses}
    return Pod(
        uid=str(metadata.get("uid", "")),
        ref=PodRef(str(metadata.get("namespace", "")), str(metadata.get("name", ""))),
        annotations={key: str(value) for key, value in annotations.items() if key.startswith(KEPT_ANNOTATIONS)},
        labels={key: str(value) for key, value in (metadata.get("labels") or {}).items()},
        containers={one: name for one, name in containers.items() if one},
        config_hash=str(annotations.get(CONFIG_HASH, "")),
        terminating="deletionTimestamp" in metadata,
        finished=status.get("phase") in FINISHED,
    )


def pods_of_node(api: KubernetesApi, node: str, *, timing: WatchTiming | None = None) -> ListWatch[Pod]:
    """A watch on the pods that are bound to ``node``, all namespaces."""
    selector = {"fieldSelector": f"spec.nodeName={node}"}
    return ListWatch(api, PODS, read_pod, selector=selector, timing=timing)
