"""Versions that differ are refused with the names of both files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from deploy.releases.agreed_version import agreed, changelog_section
from deploy.releases.child_command import ReleaseError

ROOT = Path(__file__).resolve().parents[4]
FILES = (
    "pyproject.toml",
    "bus_schemas/pyproject.toml",
    "CHANGELOG.md",
    "deploy/README.md",
    "deploy/helm/wattscale/Chart.yaml",
    "bus_schemas/subjects.py",
    "bus_schemas/export/asyncapi.json",
    "bus_schemas/export/schemas/scaling_decision.schema.json",
)
CHANGES = "# Changelog\n\n## 0.2.0 (unreleased)\nNew.\n\n- A.\n\n## 0.1.0 (2026-01-02)\n\n- B.\n\n## 0.0.1\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def edit(tree: Path, file: str, pattern: str, new: str) -> None:
    before = (tree / file).read_text()
    after = re.sub(pattern, new, before, count=1, flags=re.MULTILINE)
    assert after != before
    (tree / file).write_text(after)


def test_the_checkout_agrees(tree: Path) -> None:
    assert agreed(tree) == agreed(ROOT)
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "bus_schemas" / "LICENSE").read_bytes()


@pytest.mark.parametrize(
    ("file", "pattern", "new", "judge"),
    [
        ("deploy/helm/wattscale/Chart.yaml", r"^version: .*", "version: 9.9.9", "pyproject.toml"),
        ("deploy/helm/wattscale/Chart.yaml", r"^appVersion: .*", "appVersion: 9.9.9", "pyproject.toml"),
        ("CHANGELOG.md", r"^## \S+", "## 9.9.9", "pyproject.toml"),
        ("deploy/README.md", r"--tag \S+", "--tag 9.9.9", "pyproject.toml"),
        ("bus_schemas/pyproject.toml", r'^version = ".*"', 'version = "9.9.9"', "pyproject.toml"),
        ("pyproject.toml", r"wattscale-bus==[^\"]+", "wattscale-bus==9.9.9", "pyproject.toml"),
        ("pyproject.toml", r'^version = ".*"', 'version = "9.9.9"', "deploy/helm/wattscale/Chart.yaml"),
        ("bus_schemas/subjects.py", r'^VERSION = ".*"', 'VERSION = "v9"', "bus_schemas/export/asyncapi.json"),
        ("bus_schemas/export/asyncapi.json", r"urn:wattscale:v1", "urn:wattscale:v9", "bus_schemas/subjects.py"),
        ("bus_schemas/export/asyncapi.json", r'"version": "1', '"version": "9', "bus_schemas/subjects.py"),
        (FILES[-1], r"urn:wattscale:v1", "urn:wattscale:v9", "bus_schemas/subjects.py"),
    ],
)
def test_one_that_differs_is_refused_with_both_names(file: str, pattern: str, new: str, judge: str, tree: Path) -> None:
    edit(tree, file, pattern, new)
    with pytest.raises(ReleaseError, match=r"^versions differ: [^\n]*; make them equal$") as refusal:
        agreed(tree)
    assert file in str(refusal.value)
    assert judge in str(refusal.value)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", "[project"),
        ("pyproject.toml", "[project]\n"),
        ("deploy/helm/wattscale/Chart.yaml", "- version\n"),
        ("CHANGELOG.md", "# Changelog\n"),
        ("bus_schemas/export/asyncapi.json", "{"),
        ("deploy/README.md", None),
    ],
)
def test_a_file_without_a_version_is_named(file: str, text: str | None, tree: Path) -> None:
    if text is None:
        (tree / file).unlink()
    else:
        (tree / file).write_text(text)
    with pytest.raises(ReleaseError, match=f"^{re.escape(file)}: names no version at [^\n]*$"):
        agreed(tree)


@pytest.mark.parametrize(
    ("version", "section"),
    [
        ("0.2.0", ("## 0.2.0 (unreleased)\nNew.\n\n- A.\n", True)),
        ("0.1.0", ("## 0.1.0 (2026-01-02)\n\n- B.\n", False)),
    ],
)
def test_a_version_has_its_section(version: str, section: tuple[str, bool], tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    assert changelog_section(tmp_path, version) == section


@pytest.mark.parametrize(("version", "words"), [("0.0.1", "section 0.0.1 is empty"), ("0.3.0", "has no section 0.3.0")])
def test_a_version_without_changes_is_refused(version: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    with pytest.raises(ReleaseError, match=words):
        changelog_section(tmp_path, version)
