"""Every path of the tree that a Markdown page names exists: from the root, or from the page's own folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("agent", "bus_schemas", "deploy", "planner", "tests")
NOT_OURS = {".venv", "node_modules"}


def pages() -> list[Path]:
    """The pages at the root and in all rooms."""
    found = [*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))]
    return sorted(page for page in found if not NOT_OURS & set(page.relative_to(ROOT).parts))


def named_paths(text: str) -> set[str]:
    """Paths in backticks that begin with a room: files by their endings, and folders or programs without one."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    prose = "\n".join(line for line in prose.splitlines() if not line.startswith("    "))
    words = re.findall(r"`([\w./-]+)`", prose)
    return {
        word for word in words if re.fullmatch(rf"({'|'.join(ROOMS)})/[\w/-]+(\.(py|md|toml|ya?ml|json|txt))?", word)
    }


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    named = named_paths(page.read_text(encoding="utf-8"))
    assert [path for path in sorted(named) if not (ROOT / path).exists() and not (page.parent / path).exists()] == []


def test_a_path_that_is_gone_is_found() -> None:
    prose = "See `planner/core/gone.py`, `tests/gone`, `pools/mine.py`."
    text = f"{prose}\n\n    `agent/indented.py`\n\n```\n`deploy/fenced`\n```\n"
    assert named_paths(text) == {"planner/core/gone.py", "tests/gone"}
