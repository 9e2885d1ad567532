"""A mistyped command, option or value is one line that names the nearest known one."""

from __future__ import annotations

import pytest

from tests.command_line import run


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("statsu", "wattscale: COMMAND: there is no 'statsu': did you mean 'status'?"),
        ("budget sett 5", "wattscale: ACTION: there is no 'sett': did you mean 'set'?"),
        ("up --gpu h300", "wattscale: --gpu: there is no 'h300': did you mean 'h200'?"),
        ("status --jsn", "wattscale: unknown option --jsn: did you mean '--json'?"),
        ("up --sped=3", "wattscale: unknown option --sped: did you mean '--speed'?"),
        ("status now", "wattscale: unexpected argument 'now'"),
        ("planner run --adjustment-intervall 3", "unknown option --adjustment-intervall: did you mean '--adjustment-"),
        ("up --speed fast", "wattscale: --speed: must be a number from 0.001 to 1e+06, not 'fast'"),
        ("up --nodes 2.5", "wattscale: --nodes: must be a whole number from 1 to 10000, not '2.5'"),
    ],
)
def test_the_nearest_name_is_named(words: str, line: str) -> None:
    done = run(*words.split())
    assert done.code == 2
    assert line in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("status --jsn", "usage: wattscale status "),
        ("budget set --wats 3", "usage: wattscale budget set "),
        ("agent check --gpu 3 4", "usage: wattscale agent check "),
        ("--jsn status", "usage: wattscale "),
        ("budget", "usage: wattscale budget "),
    ],
)
def test_wrong_words_show_the_usage_of_that_command(words: str, usage: str) -> None:
    done = run(*words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(usage)
    assert done.err.splitlines()[-1].startswith("wattscale: ")
