"""No option and no setting takes a number that is not finite, absurdly large, or negative where that has no meaning."""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from agent.runtime.agent_file import AgentFile
from deploy.compose.settings_layers import Merged, SettingsError
from deploy.compose.settings_loader import validated
from planner.runtime.config.settings import Settings
from tests.command_line import run
from tests.property.deploy.commands import Command, commands

NOWHERE = ("nan", "inf", "-inf", "1e309", "1e300", "-1e300", "-1", "9" * 400)
MAY_BE_NEGATIVE = ("deployments.d.priority",)


def numeric(command: Command) -> list[argparse.Action]:
    return [action for action in command.options if getattr(action.type, "__module__", "") == "deploy.cli.numbers"]


NUMERIC = [(command, action) for command in commands() for action in numeric(command)]


def test_every_numeric_option_names_its_range() -> None:
    bare = [(one.words, action.dest) for one in commands() for action in one.options if action.type in (int, float)]
    assert bare == []
    assert len(NUMERIC) > 40


@pytest.mark.parametrize(("command", "action"), NUMERIC, ids=lambda one: getattr(one, "dest", None) or repr(one))
def test_of_an_option(command: Command, action: argparse.Action) -> None:
    option = action.option_strings[0]
    for value in NOWHERE:
        done = run(*command.words, *command.needed, f"{option}={value}")
        assert done.code == 2, (option, value)
        assert f"{option}: must be a" in done.one_line(), (option, value)


@pytest.mark.parametrize("value", NOWHERE)
def test_of_watts(value: str) -> None:
    done = run("budget", "set", "--", value)
    assert done.code == 2
    assert "WATTS: must be a number" in done.one_line()


@pytest.mark.parametrize(
    "options",
    [
        ("--seeds", "1,nan"),
        ("--what-if-budget", "0.9,inf"),
        ("--what-if-budget", "-0.5"),
        ("--budget-watts", "inf"),
        ("--budget-watts", "0:9000,nan:8000"),
        ("--start", "999999999p1d"),
        ("--nodes", "10000", "--gpus-per-node", "1000"),
    ],
)
def test_of_numbers_in_lists(options: tuple[str, ...]) -> None:
    done = run("simulate", *options)
    assert done.code == 2
    assert options[0] in done.one_line()


def settings(annotation: Any, path: str = "") -> Iterator[tuple[str, type]]:
    """(dotted path, kind) of every numeric setting: ``d`` for a name that users choose, ``0`` in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield from settings(field.annotation, f"{path}{name}.")
        return
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (int, float):
        yield path.removesuffix("."), annotation
    elif origin in (typing.Union, types.UnionType):
        for one in inner:
            yield from settings(one, path)
    elif origin is typing.Annotated:
        yield from settings(inner[0], path)
    elif origin is dict:
        yield from settings(inner[1], f"{path}d.")
    elif origin is tuple:
        yield from settings(inner[0], f"{path}0.")


def tree(path: str, value: object) -> Any:
    first, _, rest = path.partition(".")
    inner = tree(rest, value) if rest else value
    return [inner] if first == "0" else {first: inner}


SETTINGS = [(model, path) for model in (Settings, AgentFile) for path, _ in settings(model)]


@pytest.mark.parametrize(("model", "path"), SETTINGS, ids=lambda one: getattr(one, "__name__", one))
def test_of_a_setting(model: type[BaseModel], path: str) -> None:
    for text in NOWHERE:
        if text == "-1" and path in MAY_BE_NEGATIVE:
            continue
        for value in (text, float(text)):
            merged = Merged()
            merged.put((), tree(path, value), "a file")
            with pytest.raises(SettingsError) as caught:
                validated(model, merged)
            assert any(line.startswith(f"{path}: ") for line in caught.value.problems), (value, caught.value.problems)


def test_every_number_of_both_programs_is_walked() -> None:
    paths = {path for _, path in SETTINGS}
    assert {"interval_s", "sites.d.schedule.windows.0.budget_watts", "simulated.idle_watts"} <= paths
    assert len(paths) > 100
