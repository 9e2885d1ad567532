"""Writes what is generated for a local request: manifests for a cluster, settings for this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from bus_schemas.regular_files import read_regular
from deploy.cli.errors import UsageError
from deploy.installed_files import own_module
from deploy.profiling.engine_config import EngineConfig
from deploy.requests.request_folder import RequestFolder
from deploy.yaml_text import read_yaml
from planner.adapters.profiles import PROFILE_BYTES
from planner.domain.profile import Profile
from planner.profiler.online.engine_process import TEMPLATES
from planner.profiler.requests.generated.config_maps import GRAPH_FILE, RESULT_FILES, output_map, profile_map
from planner.profiler.requests.generated.deployment_sizing import DeploymentSizing, size_deployment
from planner.profiler.requests.generated.graph_deployment import graph_deployment
from planner.profiler.requests.generated.plain_deployments import plain_deployments
from planner.profiler.requests.generated.planner_configuration import PlannerPlace, planner_configuration
from planner.profiler.requests.power_request import PowerRequest
from planner.profiler.results.profile_files import write_whole

POOL: Literal["aggregated"] = "aggregated"
PLANNER_FILE, PLAIN_FILE = "planner.yaml", "deployments.yaml"
METRICS_PATH = "/metrics"
DAMAGED = "remove it, and apply the request again: it is written anew"


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """Where local workers run. ``gpus``: as ``CUDA_VISIBLE_DEVICES`` names them; empty: engines that need none."""

    bus: str
    first_port: int
    gpus: tuple[str, ...]
    engine: EngineConfig | None


def write_outputs(folder: RequestFolder, request: PowerRequest, profile: Profile, place: LocalPlace) -> None:
    """Write all files; the graph is the last. Raises SizingError and OSError."""
    sizing = size_deployment(profile, request)
    graph = _text(graph_deployment(request, sizing))
    folder.outputs.mkdir(exist_ok=True)
    folder.workers.mkdir(exist_ok=True)
    urls = [f"http://127.0.0.1:{place.first_port + i}{METRICS_PATH}" for i in range(sizing.aggregated.replicas)]
    here = PlannerPlace(str(folder.profile.resolve()), place.bus, POOL, {"urls": urls})
    settings = _text(planner_configuration(request, sizing, here))
    profiled = {name: _read(folder.profile / name) for name in RESULT_FILES}
    for name, text in {
        PLAIN_FILE: yaml.safe_dump_all(plain_deployments(request, sizing), sort_keys=False),
        PLANNER_FILE: settings,
        f"{request.output_name}.yaml": _text(output_map(request, {GRAPH_FILE: graph, PLANNER_FILE: settings})),
        "planner-profile-data.yaml": _text(profile_map(request, profiled)),
    }.items():
        write_whole(folder.outputs / name, text.encode())
    connector = _text(connector_settings(folder, request, sizing, place))
    write_whole(folder.connector_file, connector.encode(), private=True)  # It has the variables of the workers.
    write_whole(folder.outputs / GRAPH_FILE, graph.encode())


def read_graph(folder: RequestFolder) -> dict[str, Any] | None:
    """The generated graph; None where it was not written yet. Raises UsageError."""
    file = folder.outputs / GRAPH_FILE
    if not file.exists():
        return None
    try:
        found = read_yaml(_read(file))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{file}: {error}; {DAMAGED}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file}: not a deployment; {DAMAGED}")
    return found


def restore_graph(folder: RequestFolder, graph: Mapping[str, Any]) -> None:
    """Write a generated graph that is missing from the outputs. Raises OSError."""
    folder.outputs.mkdir(exist_ok=True)
    write_whole(folder.outputs / GRAPH_FILE, _text(graph).encode())


def connector_settings(
    folder: RequestFolder, request: PowerRequest, sizing: DeploymentSizing, place: LocalPlace
) -> dict[str, Any]:
    """Settings of `wattscale connector local` for the request's workers."""
    pool = sizing.aggregated
    gpus = pool.gpus if place.gpus and not request.mocker else 0
    worker: dict[str, Any] = {
        "role": POOL,
        "command": _command(folder, request, pool.gpus, place.engine),
        "gpus_per_replica": gpus,
        "startup_timeout_s": min(request.deploys_within_s, 86_400.0),
    }
    if place.engine is not None and place.engine.env and not request.mocker:
        worker["environment"] = dict(place.engine.env)
    return {
        "deployment": f"{request.deployment_namespace}-{request.deployment_name}",
        "model": request.model,
        "nats": {"servers": [place.bus]},
        "state_folder": str(folder.workers.resolve()),
        "first_port": place.first_port,
        "gpus": list(place.gpus) if gpus else [],
        "pools": {POOL: worker},
    }


def _command(folder: RequestFolder, request: PowerRequest, tp: int, engine: EngineConfig | None) -> list[str]:
    """A mocker runs at the times of the profile; other workers are started as those that were profiled."""
    if request.mocker:
        start = [*own_module("deploy.cli.main"), "engine", "--port", "{port}", "--model", "{model}"]
        return [*start, "--profile", str(folder.profile.resolve())]
    words = (*(engine.command or TEMPLATES[request.engine]), *engine.args) if engine else TEMPLATES[request.engine]
    model = engine.model if engine else request.model
    return [word.replace("{tp}", str(tp)).replace("{model}", model) for word in words]


def _text(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False)


def _read(file: Path) -> str:
    return read_regular(file, PROFILE_BYTES).decode("utf-8")
