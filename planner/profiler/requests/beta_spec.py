"""The spec of Dynamo's v1beta1 request (from release 1.0), and of our own kind, which adds watts to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from planner.profiler.analysis.recommendation import Objective, Targets
from planner.profiler.requests.alpha_spec import CACHE_PATH
from planner.profiler.requests.power_request import (
    DeploymentOverrides,
    HardwareBounds,
    ModelCache,
    OfflineSizing,
    PowerTerms,
    RequestedLoad,
)
from planner.profiler.requests.request_sections import (
    EngineGpus,
    Gpus,
    Milliseconds,
    OptionalName,
    OptionalText,
    Raw,
    RequestSection,
    Text,
    Tokens,
    not_here,
)

GpuType = Literal[
    "vr_nvl72",
    "gb200",
    "gb200_sxm",
    "gb10",
    "b300_sxm",
    "b200_sxm",
    "h200_sxm",
    "h100_sxm",
    "h100_pcie",
    "a100_sxm",
    "a100_pcie",
    "a30",
    "l40s",
    "l40",
    "l4",
    "v100_sxm",
    "v100_pcie",
    "t4",
    "mi200",
    "mi300",
]
Load = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Watts = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
GRAPH_VERSION = "nvidia.com/v1beta1"
PART_OF_TYPE = "it is part of gpuSku, or measured"
DYNAMO_OBJECTIVE: Objective = "throughput"


class BetaWorkload(RequestSection):
    """Lengths and load."""

    isl: Tokens = 4000
    osl: Tokens = 1000
    concurrency: Load | None = None
    request_rate: Load | None = None

    @model_validator(mode="after")
    def _one_load(self) -> BetaWorkload:
        if self.concurrency is not None and self.request_rate is not None:
            raise ValueError("give concurrency or requestRate, not both")
        return self


class BetaSla(RequestSection):
    """The promise."""

    ttft: Milliseconds = 2000.0
    itl: Milliseconds = 30.0
    e2e_latency: Annotated[Any, not_here("e2eLatency", "give ttft and itl")] = Field(default=None, alias="e2eLatency")
    optimization_type: Literal["latency", "throughput"] | None = None


class BetaHardware(RequestSection):
    """What there is; absent: as found."""

    gpu_sku: GpuType | None = None
    vram_mb: Annotated[Any, not_here("vramMb", PART_OF_TYPE)] = None
    total_gpus: Gpus | None = None
    num_gpus_per_node: EngineGpus | None = None
    interconnect: Annotated[Any, not_here("interconnect", PART_OF_TYPE)] = None
    rdma: Annotated[Any, not_here("rdma", PART_OF_TYPE)] = None


class BetaModelCache(RequestSection):
    """A volume claim with the weights."""

    pvc_name: OptionalName = ""
    pvc_model_path: OptionalText = ""
    pvc_mount_path: OptionalText = CACHE_PATH


def _a_graph(value: dict[str, Any]) -> dict[str, Any]:
    if value and value.get("kind") != "DynamoGraphDeployment":
        raise ValueError("kind must be DynamoGraphDeployment")
    if value and value.get("apiVersion") != GRAPH_VERSION:
        raise ValueError(f"apiVersion must be {GRAPH_VERSION}, the form that is generated")
    if not all(isinstance(value.get(key, {}), dict) for key in ("metadata", "spec")):
        raise ValueError("metadata and spec must be mappings")
    return value


Graph = Annotated[Raw, AfterValidator(_a_graph)]


class BetaOverrides(RequestSection):
    """Parts of the profiling job's and the generated deployment's own forms."""

    profiling_job: Raw = Field(default_factory=dict)
    dgd: Graph = Field(default_factory=dict)
    trust_remote_code: bool = False


class Switch(RequestSection):
    """A feature that is on or off."""

    enabled: bool = False


class BetaFeatures(RequestSection):
    """Parts of the generated deployment. ``planner``: its settings; absent: no planner."""

    planner: Raw | None = None
    kv_router: Switch = Switch()
    mocker: Switch = Switch()


class BetaSpec(RequestSection):
    """The spec. ``autoApply`` is on unless it is an explicit ``false``."""

    model: Text
    backend: Literal["auto", "vllm", "sglang", "trtllm"] = "auto"
    image: OptionalText = ""
    runtime_version_override: Annotated[
        str, not_here("runtimeVersionOverride", "set it on the components of overrides.dgd")
    ] = ""
    model_cache: BetaModelCache = BetaModelCache()
    hardware: BetaHardware = BetaHardware()
    workload: BetaWorkload = BetaWorkload()
    sla: BetaSla = BetaSla()
    overrides: BetaOverrides = BetaOverrides()
    features: BetaFeatures = BetaFeatures()
    search_strategy: Literal["rapid", "thorough"] = "rapid"
    auto_apply: bool | None = None

    def wishes(self) -> dict[str, Any]:
        """The same as arguments of a `PowerRequest`. ``rapid`` sizes offline, ``thorough`` measures."""
        cache, hardware = self.model_cache, self.hardware
        backend = "vllm" if self.backend == "auto" else self.backend
        offline = OfflineSizing(hardware.gpu_sku, self.model, backend, None)
        return {
            "model": self.model,
            "backend": self.backend,
            "targets": Targets(self.workload.isl, self.workload.osl, self.sla.ttft, self.sla.itl),
            "auto_apply": self.auto_apply is not False,
            "mocker": self.features.mocker.enabled,
            "profiler_image": self.image,
            "offline": offline if self.search_strategy == "rapid" else None,
            "load": RequestedLoad(self.workload.request_rate, self.workload.concurrency),
            "hardware": HardwareBounds(
                gpus_per_node=hardware.num_gpus_per_node,
                total_gpus=hardware.total_gpus,
                gpu_type=hardware.gpu_sku,
            ),
            "overrides": DeploymentOverrides(graph=self.overrides.dgd),
            "model_cache": ModelCache(cache.pvc_name, cache.pvc_model_path, cache.pvc_mount_path)
            if cache.pvc_name
            else None,
            "kv_router": self.features.kv_router.enabled,
            "trust_remote_code": self.overrides.trust_remote_code,
            "planner": self.features.planner,
            "profiling_job": self.overrides.profiling_job,
            "power": PowerTerms(None, None, self.sla.optimization_type or DYNAMO_OBJECTIVE),
        }


class OwnSpec(BetaSpec):
    """The spec of our own kind. ``powerBudgetWatts``: of the whole deployment's GPUs."""

    power_budget_watts: Watts | None = None
    price_per_kwh: float | None = Field(default=None, ge=0, le=1e9, allow_inf_nan=False)
    objective: Objective | None = None
    output_pvc: OptionalName = Field(default="", alias="outputPVC")

    @model_validator(mode="after")
    def _one_objective(self) -> OwnSpec:
        both = self.objective is not None and self.sla.optimization_type is not None
        if both and self.objective != self.sla.optimization_type:
            raise ValueError("objective and sla.optimizationType differ; give objective alone")
        return self

    def wishes(self) -> dict[str, Any]:
        """As above, with the watts."""
        found = self.objective or self.sla.optimization_type or DYNAMO_OBJECTIVE
        return {
            **super().wishes(),
            "output_claim": self.output_pvc,
            "power": PowerTerms(self.power_budget_watts, self.price_per_kwh, found),
        }
