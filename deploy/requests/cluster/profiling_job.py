"""The Job that profiles one TP size: the engine beside `wattscale profile`, and then `wattscale request upload`. Pure.

The engine is a sidecar: an init container that goes on running. The profiler, the last init container, begins when the
engine answers; the upload runs when the profile is there, and with its end the kubelet ends the engine. Another
sidecar, between engine and profiler, reports how far the profiler is. Only the containers that write into the ConfigMap
have the account's token: the engine's image and what it loads are the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.adapters.kubernetes.access import SERVICE_ACCOUNT
from deploy.requests.cluster.request_objects import OFFLINE, TP_LABEL, job_name, owned
from deploy.requests.local_profiling import ApplyOptions, profile_words
from deploy.requests.request_folder import RequestFolder
from planner.profiler.requests.generated.graph_components import worker_image
from planner.profiler.requests.generated.graph_deployment import GPU_RESOURCE, TOKEN_SECRET, merged
from planner.profiler.requests.generated.plain_deployments import PORT, engine_image, engine_words
from planner.profiler.requests.power_request import PowerRequest

RESULTS = Path("/results")
USER = 65532
"""Of our images."""
ENGINE, REPORT, PROFILER, UPLOAD = "engine", "report", "profile", "upload"
ACCOUNT = "account"
TOKEN_SECONDS = 3607
"""As the kubelet asks for; it renews the token."""
STARTS_WITHIN_S = 3600
PROBE_S = 5
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
}


@dataclass(frozen=True, slots=True)
class JobOptions:
    """``image``: ours; ``offline_image``: ours with the extra for offline sizing; ``account``: it may patch ConfigMaps.

    ``graph``: the deployment is a graph of Dynamo's, so that its images are profiled.
    """

    image: str
    offline_image: str
    account: str
    quick: bool
    graph: bool


def profiling_job(request: PowerRequest, uid: str, tp: int, options: JobOptions) -> dict[str, Any]:
    """The Job. Raises UsageError where the request cannot be profiled so."""
    name = job_name(request, tp)
    metadata = owned(request, uid, name)
    metadata["labels"][TP_LABEL] = str(tp)
    volumes: list[dict[str, Any]] = [{"name": "results", "emptyDir": {}}, {"name": "scratch", "emptyDir": {}}]
    if request.output_claim:
        volumes[0] = {"name": "results", "persistentVolumeClaim": {"claimName": request.output_claim}}
    before: list[dict[str, Any]] = []
    if tp != OFFLINE:
        before += [_engine(request, tp, options), _report(request, name, options)]
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
        if (cache := request.model_cache) is not None:
            volumes.append({"name": "model-cache", "persistentVolumeClaim": {"claimName": cache.claim}})
    before.append(_ours(PROFILER, _profile_words(request, tp, options), request, name, _image(tp, options)))
    where = ["--results", str(RESULTS / "profile"), "--namespace", request.namespace, "--config-map", name]
    upload = _with_token(_ours(UPLOAD, ["request", "upload", *where], request, name, options.image))
    volumes.append({"name": ACCOUNT, "projected": {"sources": _token_sources()}})
    pod = {
        "serviceAccountName": options.account,
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": {"fsGroup": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": before,
        "containers": [upload],
        "volumes": volumes,
    }
    spec = {
        # A failure is the request's; a pod that was evicted is made again.
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
        "template": {"metadata": {"labels": metadata["labels"]}, "spec": pod},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": merged(spec, dict(request.profiling_job)),
    }


def _image(tp: int, options: JobOptions) -> str:
    return options.offline_image if tp == OFFLINE else options.image


def _ours(name: str, words: Sequence[str], request: PowerRequest, job: str, image: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"name": "results", "mountPath": str(RESULTS)}
    if request.output_claim:
        mount["subPath"] = f"{request.name}/{job}"
    return {
        "name": name,
        "image": image,
        "args": list(words),
        # The last lines of the log become the message of a failure.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": RESTRICTED,
        "volumeMounts": [mount, {"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - of a container
    }


def _report(request: PowerRequest, job: str, options: JobOptions) -> dict[str, Any]:
    """After the engine: it begins when the engine answers, so that what it reads is of the profiler beside it."""
    where = ["--results", str(RESULTS / "profile"), "--namespace", request.namespace, "--config-map", job]
    found = _ours(REPORT, ["request", "report", *where, "--pod-uid", "$(POD_UID)"], request, job, options.image)
    found["env"] = [{"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]
    return {**_with_token(found), "restartPolicy": "Always"}


def _with_token(container: dict[str, Any]) -> dict[str, Any]:
    mount = {"name": ACCOUNT, "mountPath": str(SERVICE_ACCOUNT), "readOnly": True}
    return {**container, "volumeMounts": [*container["volumeMounts"], mount]}


def _token_sources() -> list[dict[str, Any]]:
    """What the kubelet would mount into every container."""
    authority = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": authority},
        {"downwardAPI": {"items": [namespace]}},
    ]


def _engine(request: PowerRequest, tp: int, options: JobOptions) -> dict[str, Any]:
    image = worker_image(request) if options.graph else engine_image(request)
    mounts: list[dict[str, Any]] = [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108 - of a container
    if (cache := request.model_cache) is not None:
        mounts.append({"name": "model-cache", "mountPath": cache.mount_path, "readOnly": True})
    return {
        "name": ENGINE,
        "image": image,
        "command": list(engine_words(request, tp)),
        "restartPolicy": "Always",
        "envFrom": [{"secretRef": {"name": TOKEN_SECRET, "optional": True}}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": {
            "httpGet": {"path": "/health", "port": "http"},
            "periodSeconds": PROBE_S,
            "failureThreshold": STARTS_WITHIN_S // PROBE_S,
        },
        "resources": {"limits": {GPU_RESOURCE: str(tp)}},
        "volumeMounts": mounts,
    }


def _profile_words(request: PowerRequest, tp: int, options: JobOptions) -> list[str]:
    asked = ApplyOptions(
        endpoint=None if tp == OFFLINE else f"http://127.0.0.1:{PORT}",
        config=None,
        tps=None if tp == OFFLINE else str(tp),
        gpus=None,
        quick=options.quick,
        max_kv_tokens=None,
        max_in_flight=None,
        bus="",
        first_port=0,
    )
    return ["profile", *profile_words(RequestFolder(RESULTS), request, asked)]
