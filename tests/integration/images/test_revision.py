"""What `deploy/images/build` writes as the revision, in a repository of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.images.recorded_docker import recorded_docker

BUILD = Path(__file__).resolve().parents[3] / "deploy" / "images" / "build"
COPIED = ("agent/a.py", "bus_schemas/b.py", "deploy/d.py", "planner/p.py", "README.md", "LICENSE", "CHANGELOG.md")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clean repository that holds the script and what it copies."""
    folder = tmp_path / "root"
    for name in (*COPIED, "tests/t.py", "pyproject.toml", ".gitignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "pyproject.toml").write_text('version = "1.2.3"\n')
    (folder / ".gitignore").write_text("__pycache__/\n*.so\n")
    (folder / "deploy/images").mkdir()
    shutil.copy(BUILD, folder / "deploy/images/build")
    _git(folder, "init", "--quiet")
    _git(folder, "add", "--all")
    _git(folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "one")
    return folder


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=_environment(folder), capture_output=True, text=True, check=True).stdout.strip()


def _environment(root: Path) -> dict[str, str]:
    """Ours without git's variables, which a hook sets for the repository that it runs in, and without its settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # No folder above is taken for the repository.
    alone = {"GIT_CEILING_DIRECTORIES": str(root.parent)}
    return {**kept, **alone, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def _revision(root: Path, record: Path) -> str:
    """The revision that Docker was given for an image built from ``root``."""
    done = subprocess.run(
        [str(root / "deploy/images/build"), "--base", f"sha256:{'0' * 64}", "planner"],
        env={**_environment(root), **recorded_docker(record.parent / "tools", record)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    (found,) = re.findall(r"--build-arg REVISION=(\S+)", record.read_text())
    return str(found)


def _changed(root: Path) -> None:
    (root / "planner/p.py").write_text("changed\n")


def _staged(root: Path) -> None:
    _changed(root)
    _git(root, "add", "planner/p.py")


def _removed(root: Path) -> None:
    (root / "agent/a.py").unlink()


def _new(root: Path) -> None:
    (root / "agent/new.py").write_text("")


def _ignored(root: Path) -> None:
    (root / "agent/fast.so").write_text("")


@pytest.mark.parametrize("change", [_changed, _staged, _removed, _new, _ignored])
def test_an_image_with_uncommitted_files_says_so(root: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    commit = _git(root, "rev-parse", "HEAD")
    change(root)
    assert _revision(root, tmp_path / "record") == f"{commit}-dirty"


def test_a_clean_tree_is_its_commit_whatever_stays_outside_the_image(root: Path, tmp_path: Path) -> None:
    (root / "tests/t.py").write_text("changed\n")
    for folder in ("agent/__pycache__", "deploy/images/__pycache__"):
        (root / folder).mkdir()
        (root / folder / "a.pyc").write_text("")
    assert _revision(root, tmp_path / "record") == _git(root, "rev-parse", "HEAD")


def test_a_tree_without_a_repository_has_an_unknown_revision(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / ".git")
    assert _revision(root, tmp_path / "record") == "unknown"
