"""A release that no longer takes what the previous one left behind is refused, by the file and the first reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.releases.child_command import ReleaseError
from deploy.releases.previous_release import PREVIOUS, taken_messages, taken_settings, taken_values

ROOT = Path(__file__).resolve().parents[4]
RECORDED = f"{PREVIOUS}/messages.jsonl"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / PREVIOUS, tmp_path / PREVIOUS)
    return tmp_path


def test_messages_and_settings_of_the_previous_release_are_taken(tree: Path) -> None:
    assert taken_messages(tree) == len((tree / RECORDED).read_text().splitlines()) >= 20
    taken_settings(tree)


def test_a_message_that_is_not_read_any_more_is_named_by_its_line(tree: Path) -> None:
    first, *others = (tree / RECORDED).read_text().splitlines()
    body = {**json.loads(first)["body"], "time": "soon"}
    broken = json.dumps({**json.loads(first), "body": body})
    (tree / RECORDED).write_text("\n".join([*others, broken]))
    with pytest.raises(ReleaseError, match=rf"^{RECORDED} line {len(others) + 1}: .*time[^\n]*$"):
        taken_messages(tree)
    (tree / RECORDED).write_text("")
    with pytest.raises(ReleaseError, match="holds no messages"):
        taken_messages(tree)


@pytest.mark.parametrize("name", ["planner", "agent"])
def test_a_setting_that_is_not_known_any_more_is_named(name: str, tree: Path) -> None:
    file = tree / PREVIOUS / f"{name}.yaml"
    file.write_text(file.read_text() + "of_another_day: 1\n")
    with pytest.raises(ReleaseError, match=rf"^{PREVIOUS}/{name}.yaml: .*of_another_day[^\n]*$"):
        taken_settings(tree)
    file.unlink()
    with pytest.raises(ReleaseError, match="No such file"):
        taken_settings(tree)


@pytest.fixture
def helm(tmp_path: Path) -> Callable[[str], Path]:
    """A program that is called as Helm is, notes its last values file, and ends as told."""

    def made(script: str) -> Path:
        program = tmp_path / "helm"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    return made


def test_values_of_every_case_are_rendered_with_what_they_need_besides(tree: Path, helm: Callable[[str], Path]) -> None:
    seen = tree / "seen"
    cases = taken_values(tree, helm(f'echo "$1 $(basename "$5") $(cat "$7")" >> {seen}'))
    assert cases == ["annotations", "dynamo", "existing-nats", "keda", "minimal"]
    lines = seen.read_text().splitlines()
    assert lines[0] == "template annotations-values.yaml {}"
    assert lines[1] == 'template dynamo-values.yaml {"nats": {"auth": {"agentSecret": "wattscale-agents"}}}'


def test_values_that_are_refused_are_named_by_their_case(tree: Path, helm: Callable[[str], Path]) -> None:
    with pytest.raises(ReleaseError, match=r"refuses annotations-values\.yaml of the previous release: no such name"):
        taken_values(tree, helm("echo no such name >&2; exit 1"))
    shutil.rmtree(tree / PREVIOUS / "values")
    with pytest.raises(ReleaseError, match="values: holds no values"):
        taken_values(tree, helm("exit 0"))
