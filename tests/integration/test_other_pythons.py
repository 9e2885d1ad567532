"""The product in other Pythons than the gate's, at night: each test is a run of its own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence

import pytest

from tests.shared_data import ROOT

PYTHONS = ("3.12", "3.13", "3.14")
ROOMS = ("tests/unit", "tests/property", "tests/contract/messages", "tests/contract/jetstream")
NOT_TO_BE_HAD = 69
WITHIN_S = 3600
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(WITHIN_S + 60)]


def command(python: str, *words: str) -> tuple[list[str], dict[str, str]]:
    """A command in another Python, and its variables: not those of this run of the tests. A part that another
    Debian lacks is no failure there: the gate has it."""
    ours = ("PYTEST_", "COV_", "COVERAGE_", "PYTHONPATH", "WATTSCALE_REQUIRE_PARTS", "WATTSCALE_NIGHT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return [str(ROOT / "tests" / "with-python"), python, *words], kept


def ran(python: str, words: Sequence[str]) -> str:
    """What it printed; it ended well. Skips what is not to be had here; in CI only what no Debian package brings."""
    line, variables = command(python, *words)
    done = subprocess.run(line, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=WITHIN_S)
    if done.returncode == NOT_TO_BE_HAD:
        reason = f"{python}: {done.stderr.strip().splitlines()[-1]}"
        if os.environ.get("WATTSCALE_REQUIRE_PARTS") and "no Debian has it" not in reason:
            pytest.fail(reason)
        pytest.skip(reason)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    return done.stdout


def passed(python: str, rooms: Sequence[str], record_property: Callable[[str, object], None]) -> int:
    """How many tests of these rooms passed; the rest of pytest's last line and each skip's reason are recorded."""
    out = ran(python, ["tests/run", "--quick", "-q", "-p", "no:cacheprovider", *rooms])
    (last,) = re.findall(r"^.*\d+ passed.*$", out, re.MULTILINE)
    for line in (last, *re.findall(r"^SKIPPED .*$", out, re.MULTILINE)):
        record_property("measured", f"Python {python}: {line}")
    return int(re.findall(r"(\d+) passed", last)[0])


@pytest.mark.parametrize("python", PYTHONS)
def test_the_rooms_pass_in_each_python(python: str, record_property: Callable[[str, object], None]) -> None:
    assert passed(python, ROOMS, record_property) >= 3000
