"""The pages for contributors name files and modules that exist."""

from __future__ import annotations

import importlib.util
import re
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
