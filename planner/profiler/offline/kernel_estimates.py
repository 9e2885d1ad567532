"""The package ``aiconfigurator-core`` as a source of an engine's times, from measurements of kernels on its system.

Owns: which models, systems and versions it knows, and every call of it. Must never let it fetch anything: an unknown
model would be looked up in a hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from planner.profiler.offline.estimate_points import AskedPoint

KV_MEMORY_SHARE = 0.9
"""Share of the GPU's memory that the engine may use; of what the weights leave free for trtllm."""
BATCHED_TOKENS = 8192
"""Most tokens of one forward pass."""
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What the package raises for a combination that it has no data for."""
MoeParallel = Literal["ep", "tp"]


class EstimateError(Exception):
    """What cannot be estimated; the message is one line."""


@dataclass(frozen=True, slots=True)
class EstimatedModel:
    """What is estimated. ``version``: of the backend. ``moe``: how experts are divided among the GPUs of an engine.

    ``max_context``: tokens that the model takes.
    """

    model: str
    system: str
    backend: str
    version: str
    moe: MoeParallel | None
    max_context: int


def chosen_model(model: str, system: str, backend: str, version: str | None, moe: MoeParallel | None) -> EstimatedModel:
    """The model with the version to use, the package's current one by default; experts are ``ep`` by default.

    Raises EstimateError, naming what the package knows, and ImportError without the package.
    """
    from aiconfigurator_core.sdk.common import DefaultHFModels

    if model not in DefaultHFModels:
        raise EstimateError(f"--model {model}: aiconfigurator-core does not know it; known: {_listed(DefaultHFModels)}")
    versions = _versions(system, backend)
    if not versions:
        known = [name for name in _systems() if _versions(name, backend)]
        raise EstimateError(f"--system {system}: there are no measurements with {backend}; known: {_listed(known)}")
    if version is not None and version not in versions:
        raise EstimateError(
            f"--backend-version {version}: there are no measurements of it on {system}; known: {_listed(versions)}"
        )
    from aiconfigurator_core.sdk.models import check_is_moe
    from aiconfigurator_core.sdk.utils import get_model_config_from_model_path

    has_experts = check_is_moe(model)
    if moe is not None and not has_experts:
        raise EstimateError(f"--moe-parallel {moe}: {model} has no experts")
    context = int(get_model_config_from_model_path(model)["context"])
    return EstimatedModel(
        model, system, backend, version or versions[0], (moe or "ep") if has_experts else None, context
    )


def package_version() -> str:
    """The package's version."""
    from importlib.metadata import version

    return version("aiconfigurator-core")


class EstimatedEngine:
    """One engine of ``tp`` GPUs. Raises EstimateError where the package has no data for it."""

    def __init__(self, what: EstimatedModel, tp: int, max_in_flight: int) -> None:
        from aiconfigurator_core.sdk import EngineHandle, estimate_kv_cache

        self._tp = tp
        sizes = _sizes(what, tp)
        try:
            self._handle: Any = EngineHandle.compile(
                what.model, what.system, what.backend, backend_version=what.version, **sizes
            )
            memory = estimate_kv_cache(
                what.model,
                what.system,
                what.backend,
                what.version,
                max_num_tokens=BATCHED_TOKENS,
                max_batch_size=max_in_flight,
                memory_fraction_kind="of_free" if what.backend == "trtllm" else "of_total",
                memory_fraction_value=KV_MEMORY_SHARE,
                **sizes,
            )
        except FAILURES as error:
            raise EstimateError(f"TP {tp}: {_line(error)}") from error
        self.max_kv_tokens = int(memory["total_kv_size_tokens"])
        self.inferred = 0
        """How many estimates were not interpolated between measurements, but inferred from other kernels."""

    def ms(self, asked: AskedPoint) -> float:
        """TTFT of a prefill, or the mean ITL over the answer, in milliseconds. Raises EstimateError."""
        point = asked.point
        try:
            if point.phase == "prefill":
                found = self._handle.predict_prefill_latency(1, point.isl)
            else:
                tokens = max(2, asked.answer_tokens)
                # The first token is the prefill's.
                found = self._handle.predict_decode_latency(point.in_flight, point.isl, tokens) / (tokens - 1)
        except FAILURES as error:
            raise EstimateError(f"{point}: {_line(error)}") from error
        self.inferred += self._handle.last_provenance() is not None
        return float(found)


def _sizes(what: EstimatedModel, tp: int) -> dict[str, int]:
    if what.moe is None:
        return {"tp_size": tp}
    expert, tensor = (tp, 1) if what.moe == "ep" else (1, tp)
    return {"tp_size": tp, "moe_ep_size": expert, "moe_tp_size": tensor}


def _versions(system: str, backend: str) -> tuple[str, ...]:
    """Versions of the backend with measurements on a system, the default first."""
    from aiconfigurator_core.sdk.perf_database import get_version_slots

    found = get_version_slots(system, backend) or {}
    return tuple(dict.fromkeys(found.values()))


def _systems() -> tuple[str, ...]:
    from importlib.resources import files

    folder = files("aiconfigurator_core") / "systems"
    return tuple(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
