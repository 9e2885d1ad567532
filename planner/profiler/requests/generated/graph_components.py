"""The parts of a generated graph: what each runs, in terms of neither API version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from planner.profiler.requests.generated.deployment_sizing import (
    DeploymentSizing,
    PoolSizing,
    budget_of,
    planner_name,
)
from planner.profiler.requests.power_request import PowerRequest, RequestForm

Role = Literal["frontend", "planner", "prefill", "decode"]
PROFILE_MAP = "planner-profile-data"
PROFILE_PATH = "/workspace/profiling_results"
POWER_ANNOTATION = "dynamo.nvidia.com/gpu-power-limit"
REGISTRY = "nvcr.io/nvidia/ai-dynamo"
DEFAULT_RELEASE = "1.6.1"
"""Of the images of a request that names none."""
RUNTIMES = {"vllm": "vllm-runtime", "sglang": "sglang-runtime", "trtllm": "tensorrtllm-runtime"}
SGLANG_BOOTSTRAP_PORT = 12345
KV_TRANSFER = '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'


@dataclass(frozen=True, slots=True)
class GraphVolume:
    """A ConfigMap or a volume claim, mounted at a path."""

    name: str
    path: str
    source: Mapping[str, Any]
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class GraphComponent:
    """One component. ``gpus`` 0: none. ``scaled``: its replicas are another program's to set."""

    name: str
    role: Role
    replicas: int
    image: str
    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    gpus: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[GraphVolume, ...] = ()
    scaled: bool = False


def components(request: PowerRequest, sizing: DeploymentSizing) -> tuple[GraphComponent, ...]:
    """Frontend, Dynamo's planner where the request has one, and the workers of both phases."""
    router = {"DYN_ROUTER_MODE": "kv"} if request.kv_router else {}
    found = [GraphComponent("Frontend", "frontend", 1, worker_image(request), environment=router)]
    # Our own kind is scaled by our planner: two would fight over the replicas.
    if request.form is not RequestForm.OWN and request.planner is not None:
        found.append(_planner(request, sizing))
    found += [_worker(request, "prefill", sizing.prefill), _worker(request, "decode", sizing.decode)]
    return tuple(found)


def worker_image(request: PowerRequest) -> str:
    """The image of frontend and workers: as given, or the backend's runtime of the profiler's release."""
    if request.overrides.workers_image:
        return request.overrides.workers_image
    given = request.profiler_image
    if request.form is RequestForm.V1ALPHA1:
        return given
    if request.mocker:
        return given or f"{REGISTRY}/dynamo-planner:{DEFAULT_RELEASE}"
    folder, _, last = given.rpartition("/")
    release = last.partition(":")[2] or DEFAULT_RELEASE
    return f"{folder or REGISTRY}/{RUNTIMES[request.engine]}:{release}"


def _worker(request: PowerRequest, role: Literal["prefill", "decode"], pool: PoolSizing) -> GraphComponent:
    volumes = []
    if (cache := request.model_cache) is not None:
        claim = {"persistentVolumeClaim": {"claimName": cache.claim}}
        volumes.append(GraphVolume("model-cache", cache.mount_path, claim))
    if request.mocker:
        volumes.append(_profile_volume())
    power = {} if pool.cap_watts is None or request.form is RequestForm.OWN else {POWER_ANNOTATION: str(pool.cap_watts)}
    return GraphComponent(
        name=role,
        role=role,
        replicas=pool.replicas,
        image=worker_image(request),
        command=("python3", "-m", "dynamo.mocker" if request.mocker else f"dynamo.{request.engine}"),
        arguments=_mocker(request, role) if request.mocker else _engine(request, role, pool.gpus),
        gpus=0 if request.mocker else pool.gpus,
        annotations=power,
        volumes=tuple(volumes),
        scaled=request.form is RequestForm.OWN,
    )


def _engine(request: PowerRequest, role: str, gpus: int) -> tuple[str, ...]:
    model, served = request.weights, ("--served-model-name", request.model)
    trusted = ("--trust-remote-code",) if request.trust_remote_code else ()
    mode = ("--disaggregation-mode", role)
    match request.engine:
        case "vllm":
            first = ("--model", model, *served, "--tensor-parallel-size", str(gpus), *trusted)
            if role == "decode":
                return first
            old = request.form is RequestForm.V1ALPHA1
            return (*first, "--is-prefill-worker") if old else (*first, *mode, "--kv-transfer-config", KV_TRANSFER)
        case "sglang":
            transfer = ("nixl", "--disaggregation-bootstrap-port", str(SGLANG_BOOTSTRAP_PORT), "--host", "0.0.0.0")  # noqa: S104
            first = ("--model-path", model, *served, "--page-size", "16", "--tp", str(gpus), *trusted)
            return (*first, "--skip-tokenizer-init", *mode, "--disaggregation-transfer-backend", *transfer)
        case _:
            return ("--model-path", model, *served, "--tensor-parallel-size", str(gpus), *mode)


def _mocker(request: PowerRequest, role: str) -> tuple[str, ...]:
    first = ("--model-path", request.model, "--model-name", request.model, "--planner-profile-data", PROFILE_PATH)
    if request.form is RequestForm.V1ALPHA1:
        return (*first, "--is-prefill-worker") if role == "prefill" else first
    return (*first, "--disaggregation-mode", role)


def _planner(request: PowerRequest, sizing: DeploymentSizing) -> GraphComponent:
    targets = request.targets
    settings: dict[str, Any] = {
        "environment": "kubernetes",
        "backend": "mocker" if request.mocker else request.engine,
        "ttft": targets.ttft_ms,
        "itl": targets.itl_ms,
        "profile_results_dir": PROFILE_PATH,
        "prefill_engine_num_gpu": sizing.prefill.gpus,
        "decode_engine_num_gpu": sizing.decode.gpus,
    }
    if request.hardware.total_gpus is not None:
        settings["max_gpu_budget"] = request.hardware.total_gpus
    if budget_of(request) is not None:
        settings["enable_power_awareness"] = True
    settings |= {planner_name(key): value for key, value in (request.planner or {}).items()}
    if request.form is RequestForm.V1ALPHA1:
        # The lengths are flags of the old planner only.
        flags = {"isl": targets.isl, "osl": targets.osl, **settings}
        command: tuple[str, ...] = ("python3", "-m", "dynamo.planner.planner_sla")
        arguments = tuple(flag for key, value in flags.items() for flag in _flag(key, value))
    else:
        command, arguments = ("python3", "-m", "dynamo.planner"), ("--config", json.dumps(settings))
    image = request.profiler_image or f"{REGISTRY}/dynamo-planner:{DEFAULT_RELEASE}"
    return GraphComponent("Planner", "planner", 1, image, command, arguments, volumes=(_profile_volume(),))


def _flag(key: str, value: Any) -> tuple[str, ...]:
    name = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return (name,) if value else ()
    return (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}",)


def _profile_volume() -> GraphVolume:
    return GraphVolume(PROFILE_MAP, PROFILE_PATH, {"configMap": {"name": PROFILE_MAP}})
