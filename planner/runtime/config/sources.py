"""Reads settings: a YAML file, then the environment, then flags, each stronger than the one before.

Refuses what it does not know, by name, with the nearest name it knows: a misspelt limit must not become no limit.
"""

from __future__ import annotations

import difflib
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource
from pydantic_settings import SettingsError as EnvError

from planner.runtime.config.dynamo_flags import BY_NAME, Flag, normal
from planner.runtime.config.merge import Layer, flat, merge
from planner.runtime.config.settings import Settings, plain

ENV_PREFIX = "WATTSCALE_"
FOREIGN = frozenset({"NATS_URL", "SHARED", "VENV", "TEST_WORKERS", "REQUIRE_PARTS"})
"""Variables of the same prefix that other commands read."""
DEFAULT_DEPLOYMENT = "dynamo"
ENVIRONMENT = "environment"


class SettingsError(Exception):
    """Settings that can not be used. ``problems``: one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings in force. ``origins`` by dotted path; ``notes``: names that were accepted and need nothing here."""

    settings: Settings
    origins: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, Any, str]]:
        """(path, value, where it came from) of every setting, secrets masked."""
        return [(path, value, self._origin(path)) for path, value in flat(plain(self.settings))]

    def _origin(self, path: str) -> str:
        known = {_ours(path): origin for path, origin in self.origins.items()}
        while path:
            if path in known:
                return known[path]
            path = path.rpartition(".")[0]
        return "default"


HPA_WORDS = {
    "scaleUp": "scale_up",
    "scaleDown": "scale_down",
    "stabilizationWindowSeconds": "stabilization_window_s",
    "selectPolicy": "select",
}


def _ours(path: str) -> str:
    return ".".join(HPA_WORDS.get(part, part) for part in path.split("."))


def load(
    file: Path | None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Settings from ``file``, ``environ`` (default: this process's) and flags.

    ``flags``: Dynamo's flags by name; ``overrides``: ``PATH=VALUE`` of any setting. Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    notes: list[str] = []
    layers = [
        *([_file_layer(file, problems, notes)] if file else []),
        _env_layer(environ, problems),
        _flag_layer(flags or {}, overrides, problems, notes),
    ]
    if problems:
        raise SettingsError(problems)
    merged = merge(layers, environ.get("DYN_NAMESPACE", DEFAULT_DEPLOYMENT))
    for path, origin in merged.origins.items():
        variable = ENV_PREFIX + path.upper().replace(".", "__")
        if origin == ENVIRONMENT and variable in environ:
            merged.origins[path] = f"{ENVIRONMENT} {variable}"
    try:
        settings = Settings(**merged.tree)
    except ValidationError as error:
        raise SettingsError([_problem(dict(e), merged.origins) for e in error.errors(include_url=False)]) from error
    return Loaded(settings, merged.origins, tuple(notes))


def _file_layer(file: Path, problems: list[str], notes: list[str]) -> Layer:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{file}: can not be read: {error.strerror or error}")
        return Layer(str(file))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{file}: is not YAML: {' '.join(str(error).split())}")
        return Layer(str(file))
    if content is None:
        content = {}
    if not isinstance(content, dict):
        problems.append(f"{file}: holds a {type(content).__name__}, not settings by name")
        return Layer(str(file))
    tree, spread = {}, []
    for key, value in content.items():
        flag = BY_NAME.get(normal(str(key)))
        if key in Settings.model_fields:
            tree[str(key)] = value
        elif flag is not None:
            spread += _translated(flag, value, f"{file} ({key})", problems, notes)
        else:
            problems.append(_unknown(f"{file}: ", str(key), [*Settings.model_fields, *BY_NAME]))
    return Layer(str(file), tree, tuple(spread))


def _env_layer(environ: Mapping[str, str], problems: list[str]) -> Layer:
    names = [name.removeprefix(ENV_PREFIX) for name in environ if name.startswith(ENV_PREFIX)]
    known = [field.upper() for field in Settings.model_fields]
    for name in names:
        first = name.split("__", 1)[0].upper()
        near = difflib.get_close_matches(first, known, n=1, cutoff=0.8)
        if first not in known and first not in FOREIGN and near:
            problems.append(f"{ENV_PREFIX}{name}: no such setting; did you mean {ENV_PREFIX}{near[0]}?")
    spread = []
    if "PROMETHEUS_ENDPOINT" in environ:
        spread.append(("prometheus.url", environ["PROMETHEUS_ENDPOINT"], "environment PROMETHEUS_ENDPOINT"))
    source = EnvSettingsSource(Settings)
    variables: dict[str, str | None] = {name.lower(): value for name, value in environ.items()}
    source.env_vars = variables
    try:
        tree = source()
    except EnvError as error:
        problems.append(f"environment: {' '.join(str(error).split())}")
        tree = {}
    return Layer(ENVIRONMENT, tree, tuple(spread))


def _flag_layer(flags: Mapping[str, Any], overrides: Iterable[str], problems: list[str], notes: list[str]) -> Layer:
    spread = []
    for name, value in flags.items():
        flag = BY_NAME.get(normal(name))
        if flag is None:
            problems.append(_unknown("--", name, BY_NAME))
        else:
            spread += _translated(flag, value, f"flag --{name.replace('_', '-')}", problems, notes)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            problems.append(f"--set {override}: write PATH=VALUE, as in --set interval_s=10")
            continue
        spread.append((path, yaml.safe_load(text) if text else "", f"flag --set {path}"))
    return Layer("flags", {}, tuple(spread))


def _translated(
    flag: Flag, value: Any, origin: str, problems: list[str], notes: list[str]
) -> list[tuple[str, Any, str]]:
    if flag.to is None:
        notes.append(f"{flag.name}: {flag.became}")
        return []
    try:
        return [(path, found, origin) for path, found in flag.to(value).items()]
    except ValueError as error:
        problems.append(f"{origin}: {error}")
        return []


def _unknown(where: str, key: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
    return f"{where}{key}: no such setting; {hint}"


def _problem(error: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """One line for one validation error: where, what, and from which source."""
    path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return _unknown("".join(f"{part}." for part in path[:-1]), path[-1], _fields_at(Settings, path[:-1]))
    dotted = ".".join(path)
    origin = next((origins[p] for p in (dotted, dotted.rpartition(".")[0]) if p in origins), "")
    value = error.get("input")
    shown = f", not {value!r}" if isinstance(value, str | int | float) and "token" not in dotted else ""
    return f"{dotted}: {error['msg']}{shown}" + (f" (from {origin})" if origin else "")


def _fields_at(annotation: Any, path: Sequence[str]) -> list[str]:
    """Names that the block at ``path`` knows."""
    model = _model_of(annotation)
    if model is None:
        inner = typing.get_args(annotation)
        return _fields_at(inner[-1], path[1:]) if inner and path else []
    if not path:
        return [word for name, known in model.model_fields.items() for word in (name, known.alias) if word]
    by_alias = {alias: field for field in model.model_fields.values() if (alias := field.alias)}
    field = model.model_fields.get(path[0]) or by_alias.get(path[0])
    return _fields_at(field.annotation, path[1:]) if field else []


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return next((model for arg in typing.get_args(annotation) if (model := _model_of(arg))), None)
    return None
