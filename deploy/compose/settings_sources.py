"""Where settings of planner and agent are read: pydantic-settings' sources for the YAML file and the environment.

The library's command-line source is not used: the flags have names of their own (Dynamo's, and short ones), which
argparse already parses. Nor is its way of merging: it forgets which source a value came from, and it knows no name that
applies to every deployment.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource, YamlConfigSettingsSource
from pydantic_settings import SettingsError as SourceError
from pydantic_settings.sources.types import EnvNoneType

from bus_schemas.regular_files import SETTINGS_BYTES, open_regular, read_regular
from deploy.compose.settings_layers import SettingsError, Tree
from deploy.compose.settings_loader import ENVIRONMENT, NESTED, Variables
from deploy.yaml_text import read_yaml

NULL = "null"
"""How a variable unsets a setting that has a default."""


def read_file(model: type[BaseModel], file: Path) -> Tree:
    """The names and values of a YAML file; empty for an empty one. Raises SettingsError."""
    try:
        # The library takes a missing file for an empty one; opening it says why it cannot be read.
        open_regular(file).close()
        return _File(_as_settings(model), yaml_file=file, yaml_file_encoding="utf-8")()
    except OSError as error:
        raise SettingsError([f"{file}: cannot be read: {error.strerror or error}"]) from error
    except UnicodeDecodeError:
        raise SettingsError([f"{file}: not text (UTF-8)"]) from None
    except ValueError as error:
        raise SettingsError([f"{file}: {error}"]) from error


class _File(YamlConfigSettingsSource):
    def _read_file(self, file_path: Any) -> dict[str, Any]:
        # Bounded: the first kilobytes of a binary are enough to see that it is not a settings file.
        content: object = read_yaml(read_regular(file_path, SETTINGS_BYTES).decode("utf-8"))
        if content is None:
            return {}
        if not isinstance(content, dict):
            kind = "list" if isinstance(content, list) else "single value"
            raise SettingsError([f"{file_path}: holds a {kind}, not settings by name"])
        return {str(key): value for key, value in content.items()}


def read_environment(model: type[BaseModel], variables: Variables, environ: Mapping[str, str]) -> Tree:
    """What the environment sets. Sections and lists may be written as YAML, thus as JSON. Raises SettingsError."""
    if problems := _unknown_variables(model, variables, environ):
        raise SettingsError(problems)
    source = _Environment(_as_settings(model), variables.prefix, environ)
    try:
        return source()
    except SourceError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = f"{variables.prefix}{field[1].upper()}" if field else variables.prefix
        raise SettingsError([f"{ENVIRONMENT} {name}: {error.__cause__ or error}"]) from error


class _Environment(EnvSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], prefix: str, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(
            settings_cls, env_prefix=prefix, env_nested_delimiter=NESTED, env_parse_none_str=NULL, case_sensitive=False
        )

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): EnvNoneType(text) if text == NULL else text for name, text in self._environ.items()}

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        try:
            return read_yaml(value)
        except ValueError as error:
            raise ValueError(f"neither YAML nor JSON: {error}") from error


def _as_settings(model: type[BaseModel]) -> type[BaseSettings]:
    """The sources read a model's fields and configuration only, so that a plain model serves. A ``BaseSettings`` would
    read the environment of the process whenever one is made, also in tests."""
    return typing.cast("type[BaseSettings]", model)


def _unknown_variables(model: type[BaseModel], variables: Variables, environ: Mapping[str, str]) -> list[str]:
    known = [name.upper() for name in model.model_fields]
    problems = []
    for name in sorted(environ):
        if not name.startswith(variables.prefix):
            continue
        first = name.removeprefix(variables.prefix).split(NESTED, 1)[0].upper()
        if first in known or first in variables.foreign:
            continue
        near = difflib.get_close_matches(first, known, n=1, cutoff=0.6 if variables.strict else 0.8)
        if near:
            problems.append(f"{name}: no such setting; did you mean {variables.prefix}{near[0]}?")
        elif variables.strict:
            problems.append(f"{name}: no such setting; known are {', '.join(sorted(known))}")
    return problems
