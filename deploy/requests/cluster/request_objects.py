"""Names, labels and paths of what belongs to a request in a cluster. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from planner.profiler.requests.power_request import OWN_GROUP, OWN_KIND, PowerRequest
from planner.profiler.requests.request_status import RequestEvent

RESOURCE = "inferencepowerrequests"
FINALIZER = f"{OWN_GROUP}/request"
UID_LABEL = f"{OWN_GROUP}/request-uid"
TP_LABEL = f"{OWN_GROUP}/tp"
"""On Jobs and ConfigMaps of results: the TP size that is profiled; 0: all of them, offline."""
SIZES = f"{OWN_GROUP}/tp-sizes"
"""On the first ConfigMap of results: all TP sizes of the request, so that a later count of GPUs changes none."""
FORM = f"{OWN_GROUP}/generated"
"""On the ConfigMap of outputs: the file that is applied."""
REPORTED_PHASE, REPORTING_POD = f"{OWN_GROUP}/profiling-phase", f"{OWN_GROUP}/profiling-pod"
"""On ConfigMaps of results, by the Job's pod: the part of profiling that is under way there, and that pod's uid."""
OFFLINE = 0
CORE, BATCH, APPS = "/api/v1", "/apis/batch/v1", "/apis/apps/v1"
OWN = f"/apis/{OWN_GROUP}/v1alpha1"
GRAPHS = "/apis/nvidia.com/v1beta1"
NODES = f"{CORE}/nodes"


def path(root: str, namespace: str, resource: str, name: str = "") -> str:
    """Of a collection, or of one object in it."""
    return "/".join(part for part in (f"{root}/namespaces/{namespace}/{resource}", name) if part)


def path_of(item: Mapping[str, Any]) -> str:
    """Of a generated object's collection. Raises KeyError for a kind that is never generated."""
    plural = {
        "DynamoGraphDeployment": (GRAPHS, "dynamographdeployments"),
        "Deployment": (APPS, "deployments"),
        "Service": (CORE, "services"),
    }
    root, resource = plural[item["kind"]]
    return path(root, item["metadata"]["namespace"], resource)


def job_name(request: PowerRequest, tp: int) -> str:
    """Of the Job that profiles one TP size, and of the ConfigMap of its results."""
    return request.job_name if tp == OFFLINE else f"{request.job_name}-tp{tp}"


def owned(request: PowerRequest, uid: str, name: str) -> dict[str, Any]:
    """Metadata of an object that is removed with the request."""
    owner = {"apiVersion": request.form.value, "kind": OWN_KIND, "name": request.name, "uid": uid}
    return {
        "name": name,
        "namespace": request.namespace,
        "labels": {**request.labels, UID_LABEL: uid},
        "ownerReferences": [owner],
    }


def is_owned(item: Mapping[str, Any], uid: str) -> bool:
    """Whether an object was made for the request with this uid."""
    return bool((item["metadata"].get("labels") or {}).get(UID_LABEL) == uid)


def bears(item: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether an object has all these labels."""
    return labels.items() <= (item["metadata"].get("labels") or {}).items()


def event_body(item: Mapping[str, Any], event: RequestEvent) -> dict[str, Any]:
    """An Event about a request as it is now.

    Its name follows from the request's version and what it says: written again after a restart it is the same one.
    """
    meta, at = item["metadata"], event.to_dict()["at"]
    content = "\n".join((meta["uid"], meta["resourceVersion"], event.reason.value, event.message))
    mark = hashlib.sha256(content.encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name'][:200]}.{mark}", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": f"{OWN_GROUP}/v1alpha1",
            "kind": OWN_KIND,
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
        },
        "reason": event.reason.value,
        "message": event.message[:1024],
        "type": event.type,
        "source": {"component": "wattscale-request-watch"},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
