"""Every key of the planner's settings at every level that does not know it: the error names where it belongs."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from deploy.compose.planner_settings import load
from deploy.compose.settings_layers import Merged, SettingsError
from deploy.compose.settings_loader import MOST_PLACES, validated
from planner.runtime.config.dynamo_flags import BY_NAME, SECTION, normal
from planner.runtime.config.settings import Settings


def sections(annotation: Any, path: str) -> list[tuple[str, type[BaseModel]]]:
    """(path, model) of every section below an annotation, and its own; a name that users choose is ``*``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        found = [(path, annotation)]
        for name, field in annotation.model_fields.items():
            found += sections(field.annotation, f"{path}{name}.")
        return found
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        return sections(inner[-1], f"{path}*.")
    if typing.get_origin(annotation) is tuple:
        return []  # The entries of a list have no name.
    return [each for one in inner for each in sections(one, path)]


LEVELS = sections(Settings, "")
PLACES: dict[str, list[str]] = {}
for where, model in LEVELS:
    for name, field in model.model_fields.items():
        for word in {name, field.alias or name}:
            PLACES.setdefault(word, []).append(f"{where}{name}")


def belongs(where: str, key: str) -> tuple[str, set[str]]:
    """The beginning of the line that must come, and the paths that it may name."""
    return f"{where}{key}: no such setting at this level; it belongs at ", set(PLACES[key])


def check(problems: tuple[str, ...], where: str, key: str) -> None:
    start, places = belongs(where, key)
    (line,) = [each for each in problems if each.startswith(start) or f": {start}" in each]
    named = line.partition(start)[2].split(" or ")
    assert set(named) <= places
    assert len(named) == min(MOST_PLACES, len(places))


def knows(model: type[BaseModel], key: str) -> bool:
    return any(key in (name, field.alias) for name, field in model.model_fields.items())


def test_the_walk_finds_all_levels() -> None:
    assert {"", "bus.", "sites.*.", "deployments.*.", "deployments.*.pools.*.behavior.scale_up."} <= dict(LEVELS).keys()
    assert PLACES["min_replicas"] == ["deployments.*.pools.*.min_replicas"]
    assert PLACES["stabilizationWindowSeconds"] == [
        "deployments.*.pools.*.behavior.scale_up.stabilization_window_s",
        "deployments.*.pools.*.behavior.scale_down.stabilization_window_s",
    ]


@pytest.mark.parametrize("level", [where for where, _ in LEVELS if where])
def test_a_key_below_the_top_names_where_it_belongs(level: str) -> None:
    path = level.replace("*", "a").strip(".").split(".")
    misplaced = [key for key in PLACES if not knows(dict(LEVELS)[level], key)]
    merged = Merged()
    for key in misplaced:
        merged.put((*path, key), 1, "file")
    with pytest.raises(SettingsError) as found:
        validated(Settings, merged)
    for key in misplaced:
        check(found.value.problems, level.replace("*", "a"), key)


def test_a_key_at_the_top_names_where_it_belongs(tmp_path: Path) -> None:
    flags = {*BY_NAME, SECTION}
    misplaced = [key for key in PLACES if key not in Settings.model_fields and normal(key) not in flags]
    assert len(misplaced) > 100
    file = tmp_path / "planner.yaml"
    file.write_text(yaml.safe_dump(dict.fromkeys(misplaced, 1)))
    with pytest.raises(SettingsError) as found:
        load(file, environ={})
    for key in misplaced:
        check(found.value.problems, "", key)
