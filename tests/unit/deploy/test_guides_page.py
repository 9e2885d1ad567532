"""``deploy/GUIDES.md``: a row for every row of the audit, and no command or flag that there is not."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from deploy.cli.main import build_parser, main
from tests.shared_data import ROOT

PAGE = ROOT / "deploy" / "GUIDES.md"
ROW = re.compile(r"^\| ((?:\d{3}|C)\.\d+) \| .* \| (works|differs|not yet)\b.*\|$", re.MULTILINE)


def answers() -> list[str]:
    """The last cell of every row: what a user of Wattscale does."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    return [line.rstrip("| ").rpartition(" | ")[2] for line in rows]


def spans(start: str) -> list[str]:
    found = {span for cell in answers() for span in re.findall(r"`([^`]*)`", cell) if span.startswith(start)}
    return sorted(found)


def audit() -> Path:
    shared = Path(os.environ.get("WATTSCALE_SHARED", ROOT.parent / "shared"))
    return shared / "design" / "guide-audit.md"


def test_every_row_of_the_audit_has_an_answer() -> None:
    if not audit().exists():
        pytest.skip("no design pages beside this checkout")
    wanted = re.findall(r"^\| ((?:\d{3}|C)\.\d+) \|", audit().read_text(), re.MULTILINE)
    assert [name for name, _ in ROW.findall(PAGE.read_text())] == wanted


@pytest.mark.parametrize("command", spans("wattscale "))
def test_every_command_of_the_page_is_one(command: str) -> None:
    words = shlex.split(command)[1:]
    if not any(word.startswith("-") for word in words):
        words.append("--help")
    if words[-1] != "--help":
        build_parser().parse_args(words)
        return
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(words)
    assert ended.value.code == 0


@pytest.mark.parametrize("flags", spans("--"))
def test_every_flag_of_the_page_is_taken_by_the_planner(flags: str) -> None:
    build_parser().parse_args(["planner", "run", *shlex.split(flags)])


def test_a_command_that_is_none_is_found() -> None:
    assert main(["planner", "fly", "--help"]) == 2
