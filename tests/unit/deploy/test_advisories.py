"""`deploy/audit`: affected versions are named, and without data nothing is called well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.advisories import main

LOCK = "# made\naiohttp==3.14.5 \\\n    --hash=sha256:aa\nruamel.yaml==0.18.1 \\\n    --hash=sha256:bb\n"


def advisory(folder: Path, name: str, identity: str = "PYSEC-1", **affected: Any) -> None:
    folder.mkdir(exist_ok=True)
    package = {"ecosystem": affected.pop("ecosystem", "PyPI"), "name": name}
    more = affected.pop("more", {})
    text = {"id": identity, "summary": "a fault", "affected": [{"package": package, **affected}], **more}
    (folder / f"{identity}.json").write_text(json.dumps(text))


def fixed_in(*events: dict[str, str]) -> list[dict[str, Any]]:
    return [{"type": "ECOSYSTEM", "events": list(events)}]


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    path.write_text(LOCK)
    return path


@pytest.mark.parametrize(
    ("name", "affected", "found"),
    [
        ("aiohttp", {"versions": ["3.14.5"]}, True),
        ("aiohttp", {"versions": ["3.14.4"]}, False),
        ("aiohttp", {"ranges": fixed_in({"introduced": "0"}, {"fixed": "3.14.6"})}, True),
        ("aiohttp", {"ranges": fixed_in({"introduced": "0"}, {"fixed": "3.14.5"})}, False),
        ("aiohttp", {"ranges": fixed_in({"introduced": "3.9"}, {"last_affected": "3.14.5"})}, True),
        ("aiohttp", {"ranges": fixed_in({"introduced": "3.15"})}, False),
        ("aiohttp", {"ranges": fixed_in({"introduced": "0"}, {"fixed": "3.1"}, {"introduced": "3.10"})}, True),
        ("Ruamel_YAML", {"versions": ["0.18.1"]}, True),
        ("aiohttp", {}, True),
        ("aiohttp", {"versions": ["3.14.5"], "more": {"withdrawn": "2026-01-01T00:00:00Z"}}, False),
        ("aiohttp", {"versions": ["3.14.5"], "ecosystem": "npm"}, False),
    ],
)
def test_a_locked_version_is_found_where_an_advisory_affects_it(
    name: str, affected: dict[str, Any], found: bool, tmp_path: Path, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    advisory(tmp_path / "osv", "another-package", "PYSEC-0", versions=["1"])
    advisory(tmp_path / "osv", name, **affected)
    assert main(["--advisories", str(tmp_path / "osv"), str(lock)]) == int(found)
    assert ("PYSEC-1: a fault" in capsys.readouterr().out) == found


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        (None, "", "holds no advisory for PyPI"),
        ("a.json", "{", "not an advisory in OSV's format"),
        ("a.json", '{"id": "x"}', "not an advisory in OSV's format"),
        ("a.json", '{"id": "x", "affected": []}', "holds no advisory for PyPI"),
    ],
)
def test_without_data_nothing_is_well(
    file: str | None, text: str, words: str, tmp_path: Path, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "osv").mkdir()
    if file:
        (tmp_path / "osv" / file).write_text(text)
    assert main(["--advisories", str(tmp_path / "osv"), str(lock)]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("version", ["2.4.6", "2.5.5"])
def test_each_of_two_locked_versions_is_judged(
    version: str, tmp_path: Path, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.write_text("numpy==2.4.6 ; python_full_version < '3.12'\nnumpy==2.5.5 ; python_full_version >= '3.12'\n")
    advisory(tmp_path / "osv", "numpy", versions=[version])
    assert main(["--advisories", str(tmp_path / "osv"), str(lock)]) == 1
    assert f"numpy {version}: PYSEC-1" in capsys.readouterr().out


def test_a_lock_without_hashes_is_read_by_lines(tmp_path: Path, lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock.write_text("aiohttp==3.14.5\nnumpy==2.4.6\n")
    advisory(tmp_path / "osv", "aiohttp", "PYSEC-1", versions=["3.14.5"])
    advisory(tmp_path / "osv", "numpy", "PYSEC-2", versions=["2.4.6"])
    assert main(["--advisories", str(tmp_path / "osv"), str(lock)]) == 1
    assert "2 findings in 2 entries" in capsys.readouterr().out


def test_a_lock_without_packages_is_no_lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    advisory(tmp_path / "osv", "aiohttp", versions=["1"])
    (tmp_path / "empty.lock").write_text("# nothing\n")
    assert main(["--advisories", str(tmp_path / "osv"), str(tmp_path / "empty.lock")]) == 2
    assert "names no package" in capsys.readouterr().err


def test_all_locks_of_the_checkout_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    advisory(tmp_path / "osv", "aiohttp", ranges=fixed_in({"introduced": "0"}))
    assert main(["--advisories", str(tmp_path / "osv")]) == 1
    told = capsys.readouterr().out
    for name in ("tests/requirements.lock", "deploy/requirements.lock", "images/agent.lock", "images/planner.lock"):
        assert f"{name}: aiohttp" in told
