"""What a request asks for, whichever of the three forms it was written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from planner.profiler.analysis.recommendation import Objective, Targets

DYNAMO_KIND = "DynamoGraphDeploymentRequest"
OWN_KIND = "InferencePowerRequest"
OWN_GROUP = "wattscale.io"
NAME_LABEL = "dgdr.nvidia.com/name"
NAMESPACE_LABEL = "dgdr.nvidia.com/namespace"


class RequestForm(StrEnum):
    """The apiVersion that it was written in. Ours is v1beta1's form with a few keys more."""

    V1ALPHA1 = "nvidia.com/v1alpha1"
    V1BETA1 = "nvidia.com/v1beta1"
    OWN = f"{OWN_GROUP}/v1alpha1"


@dataclass(frozen=True, slots=True)
class OfflineSizing:
    """Sizes from a performance model instead of measurements. ``system`` None: the GPU type that is found."""

    system: str | None
    model: str
    backend: str
    backend_version: str | None


@dataclass(frozen=True, slots=True)
class HardwareBounds:
    """What engines may use; None: as found."""

    min_gpus_per_engine: int | None = None
    max_gpus_per_engine: int | None = None
    gpus_per_node: int | None = None
    total_gpus: int | None = None
    gpu_type: str | None = None


@dataclass(frozen=True, slots=True)
class DeploymentOverrides:
    """What the generated deployment is called and carries. ``graph`` is merged into it last."""

    name: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    workers_image: str = ""
    graph: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelCache:
    """A volume claim with the model's weights."""

    claim: str
    model_path: str
    mount_path: str


@dataclass(frozen=True, slots=True)
class PowerTerms:
    """What only our own kind says. ``price_per_kwh``: in whatever currency."""

    budget_watts: float | None
    price_per_kwh: float | None
    objective: Objective


@dataclass(frozen=True, slots=True)
class RequestedLoad:
    """The load that the deployment starts with; at most one is given."""

    requests_per_s: float | None = None
    concurrency: float | None = None


@dataclass(frozen=True, slots=True)
class PowerRequest:
    """One valid request. ``spec_hash`` covers the whole spec except ``autoApply``."""

    form: RequestForm
    name: str
    namespace: str
    generation: int
    spec_hash: str
    model: str
    backend: Literal["auto", "vllm", "sglang", "trtllm"]
    targets: Targets
    auto_apply: bool
    mocker: bool
    profiler_image: str
    offline: OfflineSizing | None = None
    load: RequestedLoad = RequestedLoad()
    hardware: HardwareBounds = HardwareBounds()
    discovers_gpus: bool = True
    """Whether what ``hardware`` leaves out is taken from the GPUs that are found."""
    max_context: int | None = None
    """The longest context of the sweep; None: the engine's."""
    overrides: DeploymentOverrides = field(default_factory=DeploymentOverrides)
    model_cache: ModelCache | None = None
    kv_router: bool = False
    trust_remote_code: bool = False
    planner: Mapping[str, Any] | None = None
    """The planner's settings as given, under Dynamo's names; None: the generated deployment has no planner."""
    profiling_job: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a Kubernetes Job's spec, to be merged into that of the profiling job."""
    output_claim: str = ""
    """A volume claim for plots, logs and raw data."""
    deploys_within_s: float = 1800.0
    power: PowerTerms | None = None

    @property
    def engine(self) -> Literal["vllm", "sglang", "trtllm"]:
        """The backend; ``auto`` is vllm."""
        return "vllm" if self.backend == "auto" else self.backend

    @property
    def weights(self) -> str:
        """What an engine loads: the path in the model cache, else the model by its name."""
        cache = self.model_cache
        if cache is None or not cache.model_path:
            return self.model
        path = cache.model_path
        return path if path.startswith(cache.mount_path) else f"{cache.mount_path}/{path.strip('/')}"

    @property
    def gpus_needed(self) -> int:
        """GPUs without which profiling does not begin."""
        return 0 if self.offline is not None else max(1, self.hardware.min_gpus_per_engine or 1)

    @property
    def deployment_name(self) -> str:
        """Of the generated deployment."""
        graph_name = self.overrides.graph.get("metadata", {}).get("name", "")
        return self.overrides.name or graph_name or self.name

    @property
    def deployment_namespace(self) -> str:
        """Where it runs."""
        return self.overrides.namespace or self.namespace

    @property
    def job_name(self) -> str:
        """Of the profiling job, as in Dynamo's guide."""
        return f"profile-{self.name}"

    @property
    def output_name(self) -> str:
        """Of the ConfigMap with what was generated."""
        return f"dgdr-output-{self.name}"

    @property
    def labels(self) -> dict[str, str]:
        """By which everything that belongs to this request is found."""
        return {NAME_LABEL: self.name, NAMESPACE_LABEL: self.namespace}
