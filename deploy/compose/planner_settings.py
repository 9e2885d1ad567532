"""The planner's settings: a YAML file, then the environment, then flags, each stronger than the one before.

Besides its own names, file and flags may use those of Dynamo's planner (``dynamo_flags``), which apply to every
deployment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.compose.masking import masked
from deploy.compose.settings_layers import SettingsError
from deploy.compose.settings_loader import (
    ENVIRONMENT,
    Loaded,
    Variables,
    misplaced,
    name_variables,
    unknown,
    validated,
)
from deploy.compose.settings_sources import read_environment, read_file
from deploy.compose.wildcards import Layer, merge
from deploy.yaml_text import read_yaml
from planner.runtime.config.dynamo_flags import BY_NAME, SECTION, Flag, normal
from planner.runtime.config.guide_defaults import GUIDE_DEFAULTS
from planner.runtime.config.settings import Settings

VARIABLES = Variables(
    "WATTSCALE_",
    # Variables of the same prefix that other programs read.
    frozenset({"NATS_URL", "NATS_PASSWORD", "NATS_TOKEN", "SHARED", "VENV", "TEST_WORKERS", "REQUIRE_PARTS"}),
)
DEFAULT_DEPLOYMENT = "dynamo"


def load(
    file: Path | None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    guide: str | None = None,
) -> Loaded[Settings]:
    """Settings from ``file``, ``environ`` (default: this process's) and flags.

    ``flags``: Dynamo's flags by name; ``overrides``: ``PATH=VALUE`` of any setting; ``guide``: whose defaults
    stand in for ours. Raises SettingsError with the problems of all sources.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    notes: list[str] = []
    layers = [
        *([_guide_layer(guide)] if guide else []),
        *([_file_layer(file, problems, notes)] if file else []),
        _environment_layer(environ, problems),
        _flag_layer(flags or {}, overrides, problems, notes),
    ]
    if problems:
        raise SettingsError(problems)
    merged = merge(layers, environ.get("DYN_NAMESPACE", DEFAULT_DEPLOYMENT))
    name_variables(merged, VARIABLES, environ)
    return validated(Settings, merged, [*notes, *merged.unused])


def _guide_layer(guide: str) -> Layer:
    origin = f"the {guide} guide"
    return Layer(origin, {}, tuple((path, value, origin) for path, value in GUIDE_DEFAULTS[guide].items()))


def _file_layer(file: Path, problems: list[str], notes: list[str]) -> Layer:
    try:
        content = read_file(Settings, file)
    except SettingsError as error:
        problems += error.problems
        return Layer(str(file))
    tree, spread = {}, []
    for key, value in content.items():
        flag = BY_NAME.get(normal(key))
        if key in Settings.model_fields:
            tree[key] = value
        elif normal(key) == SECTION and isinstance(value, Mapping):
            spread += _section(key, value, file, problems, notes)
        elif flag is not None:
            spread += _translated(flag, value, f"{file} ({key})", problems, notes)
        else:
            line = misplaced(Settings, "", key) or unknown("", key, [*Settings.model_fields, *BY_NAME])
            problems.append(f"{file}: {line}")
    return Layer(str(file), tree, tuple(spread))


def _section(
    section: str, keys: Mapping[str, Any], file: Path, problems: list[str], notes: list[str]
) -> list[tuple[str, Any, str]]:
    """A graph's section ``Planner:``, and a request's ``planner:``."""
    spread = []
    for key, value in keys.items():
        flag = BY_NAME.get(normal(str(key)))
        if flag is None:
            problems.append(f"{file}: {unknown(f'{section}.', str(key), BY_NAME)}")
        else:
            spread += _translated(flag, value, f"{file} ({section}.{key})", problems, notes)
    return spread


def _environment_layer(environ: Mapping[str, str], problems: list[str]) -> Layer:
    spread = []
    if "PROMETHEUS_ENDPOINT" in environ:
        spread.append(("prometheus.url", environ["PROMETHEUS_ENDPOINT"], f"{ENVIRONMENT} PROMETHEUS_ENDPOINT"))
    try:
        tree = read_environment(Settings, VARIABLES, environ)
    except SettingsError as error:
        problems += error.problems
        tree = {}
    return Layer(ENVIRONMENT, tree, tuple(spread))


def _flag_layer(flags: Mapping[str, Any], overrides: Iterable[str], problems: list[str], notes: list[str]) -> Layer:
    spread = []
    for name, value in flags.items():
        flag = BY_NAME.get(normal(name))
        if flag is None:
            problems.append(unknown("--", name, BY_NAME))
        else:
            spread += _translated(flag, value, f"flag --{name.replace('_', '-')}", problems, notes)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            problems.append(f"--set {masked(override)}: write PATH=VALUE, as in --set interval_s=10")
            continue
        try:
            spread.append((path, read_yaml(text) if text else "", f"flag --set {path}"))
        except ValueError as error:
            problems.append(f"--set {masked(override)}: {error}")
    return Layer("flags", {}, tuple(spread))


def _translated(
    flag: Flag, value: Any, origin: str, problems: list[str], notes: list[str]
) -> list[tuple[str, Any, str]]:
    if flag.to is None or flag.warned:
        notes.append(f"{flag.name}: {flag.became}")
    if flag.to is None:
        return []
    try:
        return [(path, found, origin) for path, found in flag.to(value).items()]
    except ValueError as error:
        problems.append(f"{origin}: {error}")
        return []
