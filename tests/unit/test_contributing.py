"""The pages for contributors name files and modules that exist."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (".github/CONTRIBUTING.md", "tests/README.md")
PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)*(?:/|\.\w+))(?::\w+|\.\w+\(\))?`")


def named(page: str) -> list[Path]:
    """Every path in a page's code spans and links. A span may be relative to the repository or to the page."""
    text, folder = (ROOT / page).read_text(encoding="utf-8"), (ROOT / page).parent
    spans = [path for path in PATH.findall(text) if "/" in path]
    links = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text)
    return [folder / link for link in links] + [
        folder / path if (folder / path.split("/")[0]).exists() else ROOT / path for path in spans
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page: str) -> None:
    paths = named(page)
    assert len(paths) >= 10, "the pattern finds the page's paths"
    assert [path for path in paths if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_module_that_is_run_exists(page: str) -> None:
    modules = re.findall(
        r"python -m (?:pdb -m )?((?:agent|bus_schemas|deploy|planner|tests)[\w.]*)", (ROOT / page).read_text()
    )
    assert modules, "the page runs modules"
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def row(words: str) -> str:
    """The row of the page's table that says which files a change touches."""
    lines = (ROOT / PAGES[0]).read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("|") and words in line)


def changed_tree(folder: Path, added: dict[str, str], edited: dict[str, tuple[str, str]], row: str) -> Path:
    """A copy of the tree with files added and lines inserted after others, all of them files that the row names."""
    for top in ("bus_schemas", "planner", "tests"):
        shutil.copytree(ROOT / top, folder / top, ignore=shutil.ignore_patterns("__pycache__", "data", "corpus"))
    for name, text in added.items():
        assert f"`{Path(name).parent.as_posix()}/`" in row, f"the page does not name the room of {name}"
        (folder / name).write_text(text)
    for name, (after, line) in edited.items():
        assert f"`{name}`" in row, f"the page does not name {name}"
        text = (folder / name).read_text()
        assert text.count(after) == 1, f"{name} has the line to insert after {text.count(after)} times"
        (folder / name).write_text(text.replace(after, after + line))
    return folder


def printed(tree: Path, script: str) -> str:
    """What a script prints that imports the changed tree."""
    command = [sys.executable, "-W", "error", "-c", script]
    environ = {**os.environ, "PYTHONPATH": str(tree)}
    ended = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_predictor_is_added_by_the_files_that_the_page_names(tmp_path: Path) -> None:
    """It is chosen by its name, decides, and is restored from a checkpoint."""
    model = (ROOT / "planner/core/forecast/constant.py").read_text().replace("Constant", "Double")
    model = model.replace('"constant"', '"double"').replace("self.last or 0.0", "2.0 * (self.last or 0.0)")
    registry = "planner/core/forecast/registry.py"
    tree = changed_tree(
        tmp_path,
        {"planner/core/forecast/double.py": model},
        {registry: ('    "holt": Holt(),\n', '    "double": Double(),\n')},
        row("**predictor**"),
    )
    text = (tree / registry).read_text()
    imported = "from planner.core.forecast.constant import Constant\n"
    (tree / registry).write_text(text.replace(imported, imported + "from planner.core.forecast.double import Double\n"))
    script = """
from planner.adapters import checkpoint
from planner.core.forecast import registry
band = registry.make("double", 0.9, 60.0, {}).observe(0.0, 21.0)
assert checkpoint.bands_back(checkpoint.bands({"requests": band}), {}) == {"requests": band}
print(band.model.mean(60.0))
"""
    assert printed(tree, script) == "42.0\n"
