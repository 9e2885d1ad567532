"""The file of limits found: a first start, a crash, a version of tomorrow, a full disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.adapters.managed_state import ManagedState


def test_what_is_written_is_read_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    ManagedState(path).write({"g0": 700_000})
    assert ManagedState(path).read() == {"g0": 700_000}
    assert [file.name for file in path.parent.iterdir()] == ["state.json"]


@pytest.mark.parametrize("text", [None, "", "  \n"])
def test_a_missing_or_empty_file_is_a_first_start(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "state.json"
    if text is not None:
        path.write_text(text)
    state = ManagedState(path)
    assert state.read() == {}
    assert not state.broken


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"version": 2, "managed": {}}',
        '{"version": 1, "managed": {"g": {}}}',
        '{"version": 1, "managed": []}',
        '{"version": 1, "managed": {"g": {"found_mw": "x"}}}',
    ],
)
def test_a_file_that_cannot_be_understood_is_neither_used_nor_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    state = ManagedState(path)
    assert state.read() == {}
    assert state.broken
    state.write({"g0": 1})
    assert path.read_text() == text


def test_a_folder_that_cannot_be_written_is_logged_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    state = ManagedState(blocked / "state.json")
    state.write({"g0": 1})
    assert "cannot write the list of managed GPUs" in caplog.text
    blocked.unlink()
    state.write({"g0": 1})
    assert ManagedState(blocked / "state.json").read() == {"g0": 1}


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = ManagedState(path)
    state.write({"g0": 1})
    os.utime(path, (1, 1))
    state.write({"g0": 1})
    assert path.stat().st_mtime == 1
