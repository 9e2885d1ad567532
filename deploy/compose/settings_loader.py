"""What planner and agent share of loading settings: which source won, and one clear line for each mistake.

Refuses what it does not know, by name, with the nearest name it knows: a misspelt limit must not become no limit.
Loading is a part of composition because both daemons start here and neither may import the other.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from deploy.compose.masking import masked
from deploy.compose.settings_layers import Merged, SettingsError, Tree, flat

ENVIRONMENT = "environment"
NESTED = "__"
"""Between the names of a section and its setting in a variable: ``WATTSCALE_HEALTH__PORT``."""
MOST_PLACES = 3
"""Most places that a line names for a setting at the wrong one."""
Model = TypeVar("Model", bound=BaseModel)
_SECRET = re.compile("token|password|secret|header|seed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Model]):
    """Settings in force. ``origins`` by dotted path; ``notes``: names that were accepted and need nothing here."""

    settings: Model
    origins: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, Any, str]]:
        """(path, value, where it came from) of every setting, secrets masked."""
        known = {field_path(type(self.settings), path): origin for path, origin in self.origins.items()}
        return [(path, value, _nearest_origin(path, known)) for path, value in flat(plain(self.settings))]


@dataclass(frozen=True, slots=True)
class Variables:
    """Environment variables of one program. ``foreign``: first names of the same prefix that other programs read.

    ``strict``: every other name of the prefix must be known; without it only those that look like a mistyped one.
    """

    prefix: str
    foreign: frozenset[str] = frozenset()
    strict: bool = False


def plain(settings: BaseModel) -> Tree:
    """All values as plain data; secrets, also those inside URLs, are masked."""
    shown: Tree = _masked(settings.model_dump(mode="json"))
    return shown


def name_variables(merged: Merged, variables: Variables, environ: Mapping[str, str]) -> None:
    """Replace the origin "environment" by the variable that gave the value."""
    for path, origin in merged.origins.items():
        if origin != ENVIRONMENT:
            continue
        parts = path.upper().split(".")
        names = (variables.prefix + NESTED.join(parts[:count]) for count in range(len(parts), 0, -1))
        found = next((name for name in names if name in environ), None)
        merged.origins[path] = f"{ENVIRONMENT} {found}" if found else ENVIRONMENT


def validated(model: type[Model], merged: Merged, notes: Sequence[str] = ()) -> Loaded[Model]:
    """The settings that all sources come to. Raises SettingsError with one line for each mistake."""
    if merged.problems:
        raise SettingsError(merged.problems)
    try:
        settings = model.model_validate(merged.tree)
    except ValidationError as error:
        problems = [_problem(model, dict(each), merged.origins) for each in error.errors(include_url=False)]
        raise SettingsError(problems) from error
    return Loaded(settings, dict(merged.origins), tuple(notes))


def unknown(where: str, key: str, known: Iterable[str]) -> str:
    """The line for a name that nothing knows, with the nearest one that is known."""
    import difflib  # Only a mistake needs it.

    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    hint = f"did you mean {where}{near[0]}?" if near else f"known are {', '.join(names)}"
    return f"{where}{key}: no such setting; {hint}"


def misplaced(model: type[BaseModel], where: str, key: str) -> str:
    """The line for a setting that is known at another level, with the paths where it is; empty if it is not known."""
    places = _paths_of(model, key)[:MOST_PLACES]
    return f"{where}{key}: no such setting at this level; it belongs at {' or '.join(places)}" if places else ""


def field_path(model: type[BaseModel], path: str) -> str:
    """The path with every alias (HPA's own words) replaced by the setting's name."""
    names: list[str] = []
    annotation: Any = model
    for part in path.split("."):
        known = _model_of(annotation)
        if known is None:
            inner = typing.get_args(annotation)
            annotation = inner[-1] if inner else None
            names.append(part)
            continue
        name = next((name for name, field in known.model_fields.items() if part in (name, field.alias)), part)
        annotation = known.model_fields[name].annotation if name in known.model_fields else None
        names.append(name)
    return ".".join(names)


def _problem(model: type[BaseModel], error: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """One line for one validation error: where, what, and from which source."""
    path = [str(part) for part in error["loc"]]
    dotted = ".".join(path)
    if error["type"] == "extra_forbidden":
        where = "".join(f"{part}." for part in path[:-1])
        return misplaced(model, where, path[-1]) or unknown(where, path[-1], _fields_at(model, path[:-1]))
    if error["type"] == "missing":
        return f"{dotted}: must be set; neither file, environment nor flags set it"
    origin = next((origins[p] for p in (dotted, dotted.rpartition(".")[0]) if p in origins), "")
    value = error.get("input")
    shown = (
        f", not {masked(repr(value))}" if isinstance(value, str | int | float) and not _SECRET.search(dotted) else ""
    )
    text = str(error["msg"]).removeprefix("Value error, ")
    return (f"{dotted}: " if dotted else "") + text + shown + (f" (from {origin})" if origin else "")


def _fields_at(annotation: Any, path: Sequence[str]) -> list[str]:
    """Names that the section at ``path`` knows."""
    model = _model_of(annotation)
    if model is None:
        inner = typing.get_args(annotation)
        return _fields_at(inner[-1], path[1:]) if inner and path else []
    if not path:
        return [word for name, known in model.model_fields.items() for word in (name, known.alias) if word]
    by_alias = {alias: field for field in model.model_fields.values() if (alias := field.alias)}
    field = model.model_fields.get(path[0]) or by_alias.get(path[0])
    return _fields_at(field.annotation, path[1:]) if field else []


def _paths_of(annotation: Any, key: str, above: str = "") -> list[str]:
    """Every path at which a setting of this name is known; a name that users choose is ``*``."""
    model = _model_of(annotation)
    if model is None:
        inner = typing.get_args(annotation)
        keyed = typing.get_origin(annotation) is dict and _model_of(inner[-1]) is not None
        return _paths_of(inner[-1], key, f"{above}*.") if keyed else []
    found = []
    for name, known in model.model_fields.items():
        found += [f"{above}{name}"] if key in (name, known.alias) else []
        found += _paths_of(known.annotation, key, f"{above}{name}.")
    return found


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return next((model for arg in typing.get_args(annotation) if (model := _model_of(arg))), None)
    return None


def _nearest_origin(path: str, origins: Mapping[str, str]) -> str:
    while path:
        if path in origins:
            return origins[path]
        path = path.rpartition(".")[0]
    return "default"


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return masked(value) if isinstance(value, str) else value
