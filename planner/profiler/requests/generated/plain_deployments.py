"""A request without Dynamo's operator: one Deployment of engines that do both phases, and a Service before it."""

from __future__ import annotations

from typing import Any

from planner.profiler.requests.generated.deployment_sizing import DeploymentSizing
from planner.profiler.requests.generated.graph_deployment import GPU_RESOURCE, TOKEN_SECRET
from planner.profiler.requests.power_request import PowerRequest

PORT = 8000
IMAGES = {
    "vllm": "docker.io/vllm/vllm-openai:v0.11.0",
    "sglang": "docker.io/lmsysorg/sglang:v0.5.5",
    "trtllm": "nvcr.io/nvidia/tensorrt-llm/release:1.1.0",
}
"""Of the engines' own projects, for a request that names no image for its workers."""
POOL_LABEL = "wattscale.io/pool"
POOL = "aggregated"


def plain_deployments(request: PowerRequest, sizing: DeploymentSizing) -> list[dict[str, Any]]:
    """The objects. The engine serves OpenAI's interface on port 8000."""
    pool = sizing.aggregated
    name, namespace = request.deployment_name, request.deployment_namespace
    selector = {"app.kubernetes.io/name": name, POOL_LABEL: POOL}
    labels = {**request.overrides.labels, **request.labels, **selector}
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": labels}
    if request.overrides.annotations:
        metadata["annotations"] = dict(request.overrides.annotations)
    container: dict[str, Any] = {
        "name": "engine",
        "image": engine_image(request),
        "command": list(engine_words(request, pool.gpus)),
        "ports": [{"name": "http", "containerPort": PORT}],
        "envFrom": [{"secretRef": {"name": TOKEN_SECRET, "optional": True}}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5},
        "resources": {"limits": {GPU_RESOURCE: str(pool.gpus)}},
    }
    pod: dict[str, Any] = {"terminationGracePeriodSeconds": 600, "containers": [container]}
    if (cache := request.model_cache) is not None:
        container["volumeMounts"] = [{"name": "model-cache", "mountPath": cache.mount_path, "readOnly": True}]
        pod["volumes"] = [{"name": "model-cache", "persistentVolumeClaim": {"claimName": cache.claim}}]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": pool.replicas,
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"selector": selector, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    }
    return [deployment, service]


def engine_image(request: PowerRequest) -> str:
    """The image of such an engine: as given, or that of the engine's own project."""
    return request.overrides.workers_image or IMAGES[request.engine]


def engine_words(request: PowerRequest, gpus: int) -> tuple[str, ...]:
    """The command of one engine that does both phases, in a container."""
    trusted = ("--trust-remote-code",) if request.trust_remote_code else ()
    where = ("--host", "0.0.0.0", "--port", str(PORT))  # noqa: S104 - of a container
    model, served = request.weights, ("--served-model-name", request.model)
    match request.engine:
        case "vllm":
            return ("vllm", "serve", model, *served, *where, "--tensor-parallel-size", str(gpus), *trusted)
        case "sglang":
            first = ("python3", "-m", "sglang.launch_server", "--model-path", model, *served, *where)
            return (*first, "--tp-size", str(gpus), "--enable-metrics", *trusted)
        case _:
            return ("trtllm-serve", model, *where, "--tp_size", str(gpus))
