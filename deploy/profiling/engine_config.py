"""The file of `wattscale profile --config`: which model, and how its engine is started; or a graph of Dynamo's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bus_schemas.regular_files import SETTINGS_BYTES, read_regular
from deploy.cli.errors import UsageError
from deploy.profiling.graph_engine import Worker, graph_engine, is_graph
from deploy.profiling.secret_words import secret_option
from deploy.yaml_text import read_yaml
from planner.profiler.online.engine_process import TEMPLATES, EngineCommand

Words = Annotated[tuple[str, ...], Field(max_length=1000)]
STARTS_WITHIN_S = 1800.0


class EngineConfig(BaseModel):
    """``command`` replaces the backend's; ``{model}``, ``{tp}``, ``{port}`` are filled in. ``args`` follow it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    command: Words = ()
    args: Words = ()
    env: dict[str, str] = Field(default_factory=dict)
    starts_within_s: float = Field(default=STARTS_WITHIN_S, gt=0, le=86_400)


@dataclass(frozen=True, slots=True)
class GivenEngine:
    """What a file says. ``backend`` and ``tps``: a graph's; None: the options name them."""

    config: EngineConfig
    backend: str | None = None
    tps: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    """What of a graph is not as a reader of it may think."""


def read_engine(path: Path, worker: Worker | None = None) -> GivenEngine:
    """The file. ``worker``: of a graph, whose arguments count. Raises UsageError: one line with the first mistake."""
    try:
        content = read_yaml(read_regular(path, SETTINGS_BYTES).decode("utf-8"))
        if is_graph(content):
            graph = graph_engine(content, worker)
            config = EngineConfig(model=graph.model, args=graph.arguments, env=dict(graph.environment))
            return GivenEngine(config, graph.backend, graph.tps, graph.notes)
        if worker is not None:
            raise UsageError(f"--worker goes with a DynamoGraphDeployment, and --config {path} is none")
        own = EngineConfig.model_validate(content)
        for name in ("command", "args"):
            if (option := secret_option(getattr(own, name))) is not None:
                raise UsageError(
                    f"--config {path}: {name}: {option} holds a secret, which every user of this machine could read: "
                    "leave it out, and export a variable that the engine knows (VLLM_API_KEY, HF_TOKEN) before"
                )
        return GivenEngine(own)
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        keys = ", ".join(EngineConfig.model_fields)
        raise UsageError(f"--config {path}: {where}: {first['msg']}; its keys are {keys}") from error
    except ValueError as error:
        raise UsageError(f"--config {path}: {error}") from error


def read_engine_config(path: Path) -> EngineConfig:
    """The same, without a graph's backend and TP sizes. Raises UsageError."""
    return read_engine(path).config


def engine_command(backend: str, config: EngineConfig, gpus: tuple[str, ...]) -> EngineCommand:
    """How engines of a backend are started on these GPUs. Raises UsageError for a command without its port."""
    words = config.command or TEMPLATES[backend]
    if not any("{port}" in word for word in (*words, *config.args)):
        raise UsageError("--config: command: it must take its port from {port}")
    return EngineCommand((*words, *config.args), config.model, config.env, gpus, config.starts_within_s)
