"""The vocabulary is closed: every code is documented, used, and spelled out nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

from planner.domain.reasons import ReasonCode
from tests.shared_data import ROOT

PAGE = ROOT / "planner" / "REASONS.md"


def documented() -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)


def test_the_page_lists_every_reason_once_and_no_other() -> None:
    words = documented()
    assert sorted(words) == sorted(reason.value for reason in ReasonCode)


def test_every_reason_is_given_somewhere() -> None:
    sources = "".join(path.read_text() for path in Path(ROOT / "planner" / "core").rglob("*.py"))
    unused = [reason.name for reason in ReasonCode if f"ReasonCode.{reason.name}" not in sources]
    assert unused == []
