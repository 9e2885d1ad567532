"""``deploy/TROUBLESHOOTING.md``: each message that it quotes is in the code, each check of verify has a row."""

from __future__ import annotations

import ast
import re

import pytest

from deploy.cli.main import build_parser
from deploy.cli.verify import (
    judge_automation,
    judge_function,
    judge_hardware,
    judge_infrastructure,
    judge_prometheus,
)
from deploy.cli.verify.verdicts import Check
from tests.shared_data import ROOT

PAGE = ROOT / "deploy" / "TROUBLESHOOTING.md"
ROOMS = ("agent", "bus_schemas", "deploy", "planner")
QUIET = {"allocation", "dashboard", "demo", "engine", "fault_simulation", "forecast", "profiler", "report", "sim", "v1"}
"""Folders that print none of the page's messages: parsing them would take half of the test's time."""
JUDGES = (judge_automation, judge_function, judge_hardware, judge_infrastructure, judge_prometheus)


def column(title: str) -> list[str]:
    """The cells below every table head of this name."""
    cells: list[str] = []
    place = None
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            place = None
            continue
        row = [cell.strip() for cell in line.strip("|").split(" | ")]
        if place is None:
            place = row.index(title) if title in row else -1
        elif place >= 0 and not row[0].startswith("---"):
            cells.append(row[place])
    return cells


def messages() -> list[str]:
    return [span for cell in column("message") for span in re.findall(r"`([^`]+)`", cell)]


def rendered(node: ast.expr) -> str:
    """A string of the code as the page quotes it: whatever is filled in is an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{\w+\}|%[sdr]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(rendered(part) for part in node.values)
    return "…"


def texts_of(source: str) -> set[str]:
    """All strings of a module but its documentation."""
    nodes = list(ast.walk(ast.parse(source)))
    documentation = {node.value for node in nodes if isinstance(node, ast.Expr)}
    strings = {node for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant)}
    return {rendered(node) for node in strings - documentation}


def test_every_quoted_message_is_in_the_code() -> None:
    files = [
        path for room in ROOMS for path in (ROOT / room).rglob("*.py") if not QUIET & set(path.relative_to(ROOT).parts)
    ]
    texts = "\0".join(text for path in files for text in texts_of(path.read_text(encoding="utf-8")))
    quoted = messages()
    assert len(quoted) > 100
    assert [message for message in quoted if message not in texts] == []


def test_every_check_of_verify_has_a_row() -> None:
    checks = [one.name for judge in JUDGES for one in vars(judge).values() if isinstance(one, Check)]
    assert sorted(column("check")) == sorted(checks)


def test_every_command_of_the_page_is_one() -> None:
    commands = re.findall(r"`wattscale ([a-z][^`]*)`", PAGE.read_text(encoding="utf-8"))
    assert len(commands) > 10
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            build_parser().parse_args([*command.split(), "--help"])
        assert ended.value.code == 0, command


def test_a_message_that_is_gone_is_found() -> None:
    source = '"""Once: a message."""\nx = f"{name} is not " f"there"\ny = "of {label}"\n'
    assert texts_of(source) >= {"… is not there", "of …"}
    assert not any("a message" in text for text in texts_of(source))
