"""How a local request is profiled: by `wattscale profile`, with what the request and the command line ask for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from deploy.cli.errors import CliError, NotNowError, UsageError
from deploy.profiling.engine_config import EngineConfig, read_engine_config
from deploy.profiling.node_gpus import NodeGpu, NoGpuError, NvmlNode, tp_sizes, usable
from deploy.requests.cluster.cluster_gpus import gpu_type
from deploy.requests.request_folder import RequestFolder
from planner.adapters.profiles import META_FILE, ProfileError, load_profile
from planner.profiler.analysis.profiling_phase import ProfilingPhase
from planner.profiler.online.measurement_log import logged_phase
from planner.profiler.requests.generated.deployment_sizing import SizingError, size_deployment
from planner.profiler.requests.generated.energy_cost import energy_cost
from planner.profiler.requests.lifecycle import JobProgress, ProfilingSeen
from planner.profiler.requests.power_request import PowerRequest, RequestForm


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """Where engines come from, as for `wattscale profile`; None: the engine or the node decides."""

    endpoint: str | None
    config: Path | None
    tps: str | None
    gpus: str | None
    quick: bool
    max_kv_tokens: int | None
    max_in_flight: int | None
    bus: str
    first_port: int


def run_profiler(folder: RequestFolder, request: PowerRequest, options: ApplyOptions) -> bool:
    """Profile to the end; what is measured already is kept. False: interrupted. A failure is left in the folder.

    Raises CliError where this machine lacks a part that profiling needs: the request stays as it is, and goes on with
    the same command once the part is there.
    """
    from deploy.cli.main import build_parser

    if (note := other_model(request, options)) is not None:
        print(f"note: {note}", file=sys.stderr)
    try:
        args = build_parser("profile").parse_args(["profile", *profile_words(folder, request, options)])
        return int(args.run(args)) == 0
    except NotNowError as error:
        raise CliError(f"{request.name}: Profiling: {error}; then give the command again") from error
    except ImportError as error:
        missing = f"profiling needs {error.name}: install its extra"
        raise CliError(f"{request.name}: Profiling: {missing}; then give the command again") from error
    except CliError as error:
        folder.profile_failed(logged_phase(folder.profile), "; ".join(error.lines))
    return True


def refuse_unused(request: PowerRequest, options: ApplyOptions) -> None:
    """Raises UsageError for the first option that a request which is sized offline would ignore."""
    if request.offline is None:
        return
    unused = [("--endpoint", options.endpoint is not None), ("--quick", options.quick)]
    if request.mocker:
        unused += [("--config", options.config is not None), ("--gpus", options.gpus is not None)]
    name = next((name for name, given in unused if given), None)
    if name is None:
        return
    if request.form is RequestForm.V1ALPHA1:
        key, instead = "sweep.useAiConfigurator: true", "false"
    else:
        key, instead = "searchStrategy: rapid", "thorough"
    raise UsageError(
        f"{name} would have no effect: the request is sized offline ({key}); leave it out, or set {instead} to measure"
    )


def other_model(request: PowerRequest, options: ApplyOptions) -> str | None:
    """Says so where --config starts another model than the request names: a folder of it, or a mistake."""
    given = None if options.config is None else read_engine_config(options.config).model
    if given in (None, request.model):
        return None
    return (
        f"--config {options.config} starts {given}, and the request is for {request.model}: the profile is of {given}"
    )


def check_system(request: PowerRequest) -> None:
    """Raises UsageError where a request is to be sized offline for a GPU type that is not known."""
    if request.offline is not None and request.offline.system is None:
        raise UsageError("offline sizing needs the GPU type: set spec.hardware.gpuSku, or searchStrategy thorough")


def profile_words(folder: RequestFolder, request: PowerRequest, options: ApplyOptions) -> list[str]:
    """The options of `wattscale profile` for a request. Raises UsageError where it cannot be profiled so."""
    targets, offline = request.targets, request.offline
    words = ["--isl", str(targets.isl), "--osl", str(targets.osl)]
    words += ["--ttft", f"{targets.ttft_ms:g}", "--itl", f"{targets.itl_ms:g}", "--output-dir", str(folder.profile)]
    if request.power is not None:
        words += ["--objective", request.power.objective]
    if request.max_context is not None:
        words += ["--max-context-length", str(request.max_context)]
    for name, value in (("--max-kv-tokens", options.max_kv_tokens), ("--max-in-flight", options.max_in_flight)):
        words += [] if value is None else [name, str(value)]
    if offline is not None:
        check_system(request)
        assert offline.system is not None  # noqa: S101 - as checked
        version = ["--backend-version", offline.backend_version] if offline.backend_version else []
        asked = ["--offline", "--system", offline.system, "--model", offline.model, "--backend", offline.backend]
        return [*words, *asked, *version, *_tp_words(request, options)]
    words += [*(["--quick"] if options.quick else []), *(["--gpus", options.gpus] if options.gpus else [])]
    words += _tp_words(request, options)
    if options.endpoint is not None:
        return [*words, "--endpoint", options.endpoint]
    file = options.config
    if file is None:
        trusted = ["--trust-remote-code"] if request.trust_remote_code else []
        file = folder.path / "engine.yaml"
        file.write_text(yaml.safe_dump({"model": request.model, "args": trusted}))
    return [*words, "--backend", request.engine, "--config", str(file)]


def _tp_words(request: PowerRequest, options: ApplyOptions) -> list[str]:
    """TP sizes as given, or those within the request's bounds; none: the profiler's own."""
    if options.tps is not None:
        return ["--tp", options.tps]
    bounds = request.hardware
    # Engines that are started are bounded by the GPUs of this node anyway.
    per_node = bounds.gpus_per_node if request.offline is not None else None
    given = (bounds.min_gpus_per_engine, bounds.max_gpus_per_engine, per_node)
    if options.endpoint is not None or given == (None, None, None):
        return []
    most = bounds.max_gpus_per_engine or bounds.gpus_per_node or 8
    sizes = tp_sizes(most, bounds.min_gpus_per_engine or 1)
    if not sizes:
        raise UsageError("no power of two lies within minNumGpusPerEngine and maxNumGpusPerEngine")
    return ["--tp", ",".join(map(str, sizes))]


def profiling_seen(folder: RequestFolder, request: PowerRequest) -> ProfilingSeen:
    """What the profiler left. A profile that cannot be used is a failure."""
    if (failure := folder.failure()) is not None:
        return ProfilingSeen(JobProgress.FAILED, failure[0], failure[1])
    if not (folder.profile / META_FILE).exists():
        return ProfilingSeen()
    try:
        sizing = size_deployment(load_profile(folder.profile), request)
    except (ProfileError, SizingError) as error:
        return ProfilingSeen(JobProgress.FAILED, ProfilingPhase.GENERATING_DGD, str(error))
    return ProfilingSeen(
        JobProgress.SUCCEEDED, ProfilingPhase.DONE, unmet=sizing.unmet, cost=energy_cost(request, sizing)
    )


def counted_gpus(options: ApplyOptions) -> tuple[int | None, str]:
    """How many GPUs to profile on, and why this node shows none; empty where it shows some.

    None, and nothing is looked for, where they need not be counted: the engine runs, or needs none (--tp).
    """
    if options.endpoint is not None or (options.tps is not None and options.gpus is None):
        return None, ""
    found, missing = _node_gpus(options)
    return len(found), missing


def gpu_names(options: ApplyOptions) -> tuple[str, ...]:
    """The GPUs of this node that may be used; none where there are none."""
    return tuple(gpu.uuid for gpu in gpus_here(options))


def with_gpus_here(request: PowerRequest, gpus: Sequence[NodeGpu]) -> PowerRequest:
    """The request with the GPU type, and the GPUs of a node, as found here, where it discovers them and names none.

    A request that names another type than that of this node is sized for another node.
    """
    found = gpu_type(gpus[0].name) if gpus else None
    hardware = request.hardware
    if not request.discovers_gpus or found is None or hardware.gpu_type not in (None, found):
        return request
    hardware = replace(hardware, gpu_type=found, gpus_per_node=hardware.gpus_per_node or len(gpus))
    offline = request.offline
    if offline is not None and offline.system is None:
        offline = replace(offline, system=found)
    return replace(request, hardware=hardware, offline=offline)


def gpus_here(options: ApplyOptions) -> tuple[NodeGpu, ...]:
    """The GPUs of this node that may be used; none where there are none. Raises UsageError."""
    return _node_gpus(options)[0]


def _node_gpus(options: ApplyOptions) -> tuple[tuple[NodeGpu, ...], str]:
    """As `gpus_here`, and why there are none."""
    if options.endpoint is not None and options.gpus is None:
        return (), ""
    try:
        node = NvmlNode()
    except NoGpuError as error:
        return (), str(error)
    except ImportError as error:
        return (), f"{error.name} is not installed"
    try:
        wanted = None if options.gpus is None else [int(index) for index in options.gpus.split(",")]
        found = usable(node.gpus, wanted, engine_runs=True)
    except (NoGpuError, ValueError) as error:
        raise UsageError(str(error)) from error
    finally:
        node.close()
    return found, ""


def profiled_engine(folder: RequestFolder, request: PowerRequest, options: ApplyOptions) -> EngineConfig | None:
    """How the profiled engine was started; None where it ran already, or none was."""
    if options.config is not None:
        return read_engine_config(options.config)
    own = folder.path / "engine.yaml"
    if request.offline is not None or options.endpoint is not None or not own.exists():
        return None
    return read_engine_config(own)
