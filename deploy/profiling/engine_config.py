"""The file that `wattscale profile --backend` reads: which model, and how its engine is started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bus_schemas.regular_files import SETTINGS_BYTES, read_regular
from deploy.cli.errors import UsageError
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


def read_engine_config(path: Path) -> EngineConfig:
    """The file. Raises UsageError: one line with the first mistake."""
    try:
        content = read_yaml(read_regular(path, SETTINGS_BYTES).decode("utf-8"))
        return EngineConfig.model_validate(content)
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        keys = ", ".join(EngineConfig.model_fields)
        raise UsageError(f"--config {path}: {where}: {first['msg']}; its keys are {keys}") from error
    except ValueError as error:
        raise UsageError(f"--config {path}: {error}") from error


def engine_command(backend: str, config: EngineConfig, gpus: tuple[str, ...]) -> EngineCommand:
    """How engines of a backend are started on these GPUs. Raises UsageError for a command without its port."""
    words = config.command or TEMPLATES[backend]
    if not any("{port}" in word for word in (*words, *config.args)):
        raise UsageError("--config: command: it must take its port from {port}")
    return EngineCommand((*words, *config.args), config.model, config.env, gpus, config.starts_within_s)
