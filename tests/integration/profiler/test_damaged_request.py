"""A hand that damages what a local request keeps gets one line, and nothing of the request is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.profiler.requests.lifecycle import RequestSeen, advance
from planner.profiler.requests.request_manifest import parse_request
from planner.profiler.requests.request_status import RequestStatus, status_to_dict
from tests.command_line import Done, run
from tests.unit.deploy.requests.test_generated_settings import profile_folder
from tests.unit.planner.profiler.requests.request_examples import BETA, with_value

NOW = datetime(2026, 11, 26, tzinfo=UTC)
MANIFEST = with_value(BETA, "spec.autoApply", False)
KEPT = (
    "profile/meta.json",
    "profile/prefill_raw_data.json",
    "outputs/config_with_planner.yaml",
    "workers/connector.yaml",
)


class KeptFolder:
    """A request that is Ready, and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.file, self.folder = folder / "request.yaml", folder / "kept"

    def begin(self) -> None:
        """As `apply` leaves it once a profile is there."""
        self.file.write_text(yaml.safe_dump(MANIFEST))
        (self.folder / "profile").mkdir(parents=True)
        profile_folder(self.folder / "profile")
        request, status, events = parse_request(MANIFEST), RequestStatus(), list[dict[str, str]]()
        for _ in range(2):
            step = advance(request, status, RequestSeen(), NOW)
            status, events = step.status, [*events, *(event.to_dict() for event in step.events)]
        record = {"manifest": MANIFEST, "status": status_to_dict(status, job="profile"), "events": events}
        (self.folder / "request.json").write_text(json.dumps(record))

    def apply(self) -> Done:
        return run("request", "apply", "-f", str(self.file), "--folder", str(self.folder))

    def status(self, *more: str) -> Done:
        return run("request", "status", "--folder", str(self.folder), *more)

    def delete(self) -> Done:
        return run("request", "delete", "--folder", str(self.folder))

    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "request.json").read_text()))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a request that is Ready, to be copied."""
    folder = tmp_path_factory.mktemp("ready")
    kept = KeptFolder(folder)
    kept.begin()
    done = kept.apply()
    assert done.code == 0, done
    assert kept.record()["status"]["stage"] == "Ready"
    return folder


@pytest.fixture
def ready(first: Path, tmp_path: Path) -> KeptFolder:
    return KeptFolder(Path(shutil.copytree(first, tmp_path / "copy")))


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": _truncate,
    "empty": lambda file: file.write_bytes(b""),
    "another type": lambda file: file.write_bytes(b"[1, 2]"),
    "a number": lambda file: file.write_bytes(b"5"),
    "not text": lambda file: file.write_bytes(b"\xff\xfe\x00"),
    "deep": lambda file: file.write_bytes(b"[" * 100_000),
    "a folder": _folder,
}


@pytest.mark.parametrize("name", ["request.json", "profile-failed.json", *KEPT])
def test_each_command_ends_in_a_line_that_names_the_file(first: Path, tmp_path: Path, name: str) -> None:
    for number, (what, damage) in enumerate(DAMAGES.items()):
        kept = KeptFolder(Path(shutil.copytree(first, tmp_path / str(number))))
        file = kept.folder / name
        if not file.exists():
            file.write_text("{}")
        damage(file)
        record = kept.folder / "request.json"
        before = record.read_bytes() if record.is_file() else b""
        for done in (kept.status(), kept.apply()):
            assert done.code in (0, 1, 2), (what, done)
            assert not done.code or str(file) in done.one_line(), what
        assert (record.read_bytes() if record.is_file() else b"") == before, what
        deleted = kept.delete()
        assert deleted.code == 0 or str(file) in deleted.one_line(), what


def test_put_back_it_goes_on(ready: KeptFolder) -> None:
    for name in ("request.json", *KEPT):
        file = ready.folder / name
        text = file.read_bytes()
        _truncate(file)
        ready.apply()
        file.write_bytes(text)
        done = ready.apply()
        assert done.code == 0, (name, done)


def test_a_graph_that_is_missing_is_written_anew(ready: KeptFolder) -> None:
    graph = ready.folder / "outputs" / "config_with_planner.yaml"
    whole = graph.read_text()
    shutil.rmtree(graph.parent)
    assert ready.apply().code == 0
    assert yaml.safe_load(graph.read_text()) == yaml.safe_load(whole)
    graph.write_text("- 1")
    assert "remove it, and apply the request again: it is written anew" in ready.apply().one_line()


def test_a_record_that_is_missing_costs_no_profile(ready: KeptFolder) -> None:
    (ready.folder / "request.json").unlink()
    done = ready.apply()
    assert (done.code, "it has no request.json" in done.one_line()) == (2, True)
    assert (ready.folder / "profile" / "meta.json").exists()


def test_workers_without_their_settings_are_not_taken_for_deleted(ready: KeptFolder) -> None:
    (ready.folder / "workers" / "workers.json").write_text(json.dumps({"boot": "x", "wanted": {}, "workers": []}))
    assert ready.apply().code == 0
    (ready.folder / "workers" / "connector.yaml").unlink()
    done = ready.apply()
    assert (done.code, "connector.yaml: missing, and" in done.one_line()) == (2, True)
    assert ready.record()["status"]["stage"] == "Ready"


def test_workers_are_not_started_by_a_damaged_profile(ready: KeptFolder) -> None:
    ready.file.write_text(yaml.safe_dump(with_value(BETA, "spec.autoApply", True)))
    (ready.folder / "profile" / "decode_raw_data.json").write_text("{")
    done = ready.apply()
    assert done.code == 2
    assert "its workers cannot be started: " in done.err.splitlines()[-1]
    assert ready.record()["status"]["stage"] == "Deploying"
