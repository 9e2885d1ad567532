"""The spec of Dynamo's v1alpha1 request (releases 0.6 to 0.9). Times in milliseconds, lengths in tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from planner.profiler.analysis.recommendation import Targets
from planner.profiler.requests.power_request import (
    DeploymentOverrides,
    HardwareBounds,
    ModelCache,
    OfflineSizing,
)
from planner.profiler.requests.request_sections import (
    Milliseconds,
    OptionalName,
    OptionalText,
    Raw,
    RequestSection,
    Text,
    Tokens,
    UnsetOrEngineGpus,
    UnsetOrTokens,
    Words,
    not_here,
)

CACHE_PATH = "/opt/model-cache"


class ProfilerSection(RequestSection):
    """A part of the profiler's own configuration, which takes snake_case as well."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True)


class AlphaSla(ProfilerSection):
    """The promise."""

    isl: Tokens
    osl: Tokens
    ttft: Milliseconds
    itl: Milliseconds


def _fixed(name: str, only: int) -> BeforeValidator:
    """A number of Dynamo's sweep that ours has too, and no other."""

    def check(value: Any) -> Any:
        if value != only:
            raise ValueError(f"{name} is {only} here, as by default in Dynamo; leave it out")
        return value

    return BeforeValidator(check)


class AlphaSweep(ProfilerSection):
    """How it is profiled."""

    use_ai_configurator: bool = False
    aic_system: OptionalText = ""
    aic_hf_id: OptionalText = ""
    aic_backend: Literal["", "vllm", "sglang", "trtllm"] = ""
    aic_backend_version: OptionalText = ""
    prefill_interpolation_granularity: Annotated[int, _fixed("prefillInterpolationGranularity", 16)] = 16
    decode_interpolation_granularity: Annotated[int, _fixed("decodeInterpolationGranularity", 6)] = 6
    dry_run: Annotated[bool, not_here("dryRun", "leave autoApply off and read what is generated")] = False
    pick_with_webui: Annotated[bool, not_here("pickWithWebui", "the profiler picks by the targets")] = False

    @model_validator(mode="after")
    def _offline_needs_a_system(self) -> AlphaSweep:
        if self.use_ai_configurator and not self.aic_system:
            raise ValueError("useAiConfigurator needs aicSystem, such as h200_sxm")
        if not self.use_ai_configurator and (self.aic_system or self.aic_hf_id or self.aic_backend_version):
            raise ValueError("aicSystem, aicHfId and aicBackendVersion go with useAiConfigurator: true")
        return self


class AlphaHardware(ProfilerSection):
    """What engines may use; 0 is unset."""

    min_num_gpus_per_engine: UnsetOrEngineGpus = None
    max_num_gpus_per_engine: UnsetOrEngineGpus = None
    num_gpus_per_node: UnsetOrEngineGpus = None
    enable_gpu_discovery: bool = False

    @model_validator(mode="after")
    def _least_is_not_most(self) -> AlphaHardware:
        least, most = self.min_num_gpus_per_engine, self.max_num_gpus_per_engine
        if least is not None and most is not None and least > most:
            raise ValueError(f"minNumGpusPerEngine {least} is above maxNumGpusPerEngine {most}")
        return self


class AlphaModelCache(ProfilerSection):
    """A volume claim with the weights."""

    pvc_name: OptionalName = ""
    pvc_path: OptionalText = ""
    mount_path: OptionalText = CACHE_PATH


class AlphaProfiledDeployment(ProfilerSection):
    """The deployments that are profiled. ``namespace``, ``model`` and ``serviceName`` are set by the request itself."""

    dgd_image: OptionalText = ""
    deployment_timeout: int | None = Field(default=None, ge=1, le=86_400)
    model_cache: AlphaModelCache = AlphaModelCache()


class AlphaEngine(ProfilerSection):
    """``backend`` is set by the request itself."""

    max_context_length: UnsetOrTokens = None
    is_moe_model: Annotated[bool, not_here("isMoeModel", "only tensor parallelism is profiled")] = False


class AlphaProfilerConfig(ProfilerSection):
    """``profilingConfig.config``."""

    sla: AlphaSla
    sweep: AlphaSweep = AlphaSweep()
    hardware: AlphaHardware = AlphaHardware()
    engine: AlphaEngine = AlphaEngine()
    deployment: AlphaProfiledDeployment = AlphaProfiledDeployment()
    deployment_ready_timeout_s: int | None = Field(default=None, ge=1, le=86_400, alias="deployment_ready_timeout_s")
    planner: Raw = Field(default_factory=dict)
    output_dir: Annotated[str, not_here("outputDir", "name a volume claim in outputPVC")] = ""


class AlphaProfiling(RequestSection):
    """``profilingConfig``."""

    profiler_image: Text
    config: AlphaProfilerConfig
    config_map_ref: Annotated[Any, not_here("configMapRef", "the graph is generated anew; change it afterwards")] = None
    output_pvc: OptionalName = Field(default="", alias="outputPVC")


class AlphaOverrides(RequestSection):
    """``deploymentOverrides``."""

    name: OptionalName = ""
    namespace: OptionalName = ""
    labels: Words = Field(default_factory=dict)
    annotations: Words = Field(default_factory=dict)
    workers_image: OptionalText = ""


class AlphaSpec(RequestSection):
    """The spec."""

    model: Text
    backend: Literal["vllm", "sglang", "trtllm"]
    profiling_config: AlphaProfiling
    auto_apply: bool = False
    use_mocker: bool = False
    enable_gpu_discovery: bool = False
    deployment_overrides: Annotated[AlphaOverrides | None, BeforeValidator(lambda value: value or None)] = None

    def wishes(self) -> dict[str, Any]:
        """The same as arguments of a `PowerRequest`."""
        config = self.profiling_config.config
        timeout_s = config.deployment.deployment_timeout or config.deployment_ready_timeout_s
        return {
            "model": self.model,
            "backend": self.backend,
            "targets": Targets(config.sla.isl, config.sla.osl, config.sla.ttft, config.sla.itl),
            "auto_apply": self.auto_apply,
            "mocker": self.use_mocker,
            "profiler_image": self.profiling_config.profiler_image,
            "offline": self._offline(),
            "hardware": self._hardware(),
            "discovers_gpus": self.enable_gpu_discovery or config.hardware.enable_gpu_discovery,
            "max_context": config.engine.max_context_length,
            "overrides": self._overrides(),
            "model_cache": self._model_cache(),
            "planner": config.planner,
            "output_claim": self.profiling_config.output_pvc,
            **({} if timeout_s is None else {"deploys_within_s": float(timeout_s)}),
        }

    def _offline(self) -> OfflineSizing | None:
        sweep = self.profiling_config.config.sweep
        if not sweep.use_ai_configurator:
            return None
        return OfflineSizing(
            sweep.aic_system,
            sweep.aic_hf_id or self.model,
            sweep.aic_backend or self.backend,
            sweep.aic_backend_version or None,
        )

    def _hardware(self) -> HardwareBounds:
        hardware = self.profiling_config.config.hardware
        return HardwareBounds(
            hardware.min_num_gpus_per_engine,
            hardware.max_num_gpus_per_engine,
            hardware.num_gpus_per_node,
        )

    def _overrides(self) -> DeploymentOverrides:
        given = self.deployment_overrides or AlphaOverrides()
        image = given.workers_image or self.profiling_config.config.deployment.dgd_image
        return DeploymentOverrides(given.name, given.namespace, given.labels, given.annotations, image)

    def _model_cache(self) -> ModelCache | None:
        cache = self.profiling_config.config.deployment.model_cache
        return ModelCache(cache.pvc_name, cache.pvc_path, cache.mount_path) if cache.pvc_name else None
