"""`tests/house` refuses each breach of the house's rules, accepts exceptions, and refuses those that excuse nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[1] / "house"
RULES = """
[limits]
room_files = 2
function_lines = 3

[[retired]]
words = ["heed", "can_not"]
instead = "obey"

[[retired]]
words = ["page"]
instead = "ledger"
rooms = ["planner/core/"]

[exceptions]
"""


def check(root: Path, files: dict[str, str], exceptions: str = "") -> str:
    """What the check of a small tree prints; empty where it accepts it."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "rules.toml").write_text(RULES + exceptions)
    command = [sys.executable, str(HOUSE), "--root", str(root), "--rules", str(root / "rules.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == (1 if ended.stderr else 0), ended.stderr
    return ended.stderr


@pytest.mark.parametrize(
    ("files", "refusal"),
    [
        ({"agent/a.py": "", "agent/core/a.py": ""}, "one stem for 2 files: agent/a.py, agent/core/a.py"),
        (
            {"tests/unit/a.py": "", "tests/unit/b.py": "", "tests/unit/c.py": ""},
            "tests/unit: 3 Python files, at most 2",
        ),
        ({"agent/a.py": "def f():\n    1\n    2\n    3\n"}, "agent/a.py:1: f has 4 lines, at most 3"),
        (
            {"tests/a.py": "class A:\n    async def f(self):\n        1\n        2\n        3\n"},
            "f has 4 lines, at most 3",
        ),
        ({"agent/a.py": "class A: ...", "tests/b.py": "def f():\n    class A: ..."}, "class A is 2 things"),
        ({"agent/a.py": "def _heed(): ..."}, "name '_heed': 'heed' is retired; obey"),
        ({"tests/a.py": "class KeepHeed: ..."}, "name 'KeepHeed': 'heed' is retired"),
        ({"tests/a.py": "class A:\n  def test_it_can_not(): ..."}, "name 'test_it_can_not': 'can_not' is retired"),
        ({"deploy/a_heed.py": ""}, "module 'a_heed': 'heed' is retired"),
        ({"deploy/heed/a.py": ""}, "module 'heed': 'heed' is retired"),
        ({"planner/a.py": "log.warning('take heed of %s', 1)"}, "log event 'take heed of %s': 'heed' is retired"),
        ({"planner/core/a.py": "def page(): ..."}, "name 'page': 'page' is retired; ledger"),
    ],
)
def test_a_breach_is_refused_by_name(tmp_path: Path, files: dict[str, str], refusal: str) -> None:
    assert refusal in check(tmp_path, files)


def test_what_breaks_no_rule_is_accepted(tmp_path: Path) -> None:
    files = {
        "agent/__init__.py": "",
        "agent/core/__init__.py": "",
        "agent/settings.py": "def f():\n    1\n    2\n",
        "planner/settings.py": "def page(): ...\nlog.info('heedless')\nlog.info(1)\nprint('heed')\n",
        "planner/core/a.py": "class A:\n    heed: int\n    pageant = 1\n    can = 1\n",
    }
    assert check(tmp_path, files) == ""


@pytest.mark.parametrize(
    ("files", "exception"),
    [
        ({"agent/a.py": "", "agent/core/a.py": ""}, "stem agent/a"),
        ({"agent/a.py": "", "agent/b.py": "", "agent/c.py": ""}, "room agent"),
        ({"agent/a.py": "def f():\n    1\n    2\n    3\n"}, "function agent/a.py f"),
        ({"agent/a.py": "class A: ...", "tests/b.py": "class A: ..."}, "class A"),
        ({"agent/a.py": "def heed(): ..."}, "name heed"),
        ({"deploy/heed/a.py": ""}, "module heed"),
        ({"planner/a.py": "log.warning('heed')"}, "log event heed"),
    ],
)
def test_an_exception_excuses_its_breach_and_goes_with_it(
    tmp_path: Path, files: dict[str, str], exception: str
) -> None:
    line = f'"{exception}" = "a reason"'
    assert check(tmp_path, files) != ""
    assert check(tmp_path, {}, line) == ""
    for name in files:
        (tmp_path / name).write_text("")
        (tmp_path / name).unlink()
    assert f"the exception '{exception}' excuses nothing" in check(tmp_path, {}, line)
