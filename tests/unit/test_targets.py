"""The benchmark of targets judges what its runs came to, and each of its runs is a command that `simulate` takes."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from deploy.cli.build import simulate as command
from tests.benchmarks.targets import TARGETS, WINDOWS, RunFigures, table

REACHED = RunFigures(0.971, 94.0, 96.0, 10.0, (0.97,) * 6, {"queue": 3})
FIXED = replace(REACHED, good=0.981)


@pytest.mark.parametrize(
    ("target", "found", "met"),
    [
        ("severe", {"short": replace(REACHED, good=0.96), "ample": replace(REACHED, good=0.99)}, True),
        ("severe", {"short": replace(REACHED, good=0.96), "ample": replace(REACHED, good=0.987)}, False),
        ("fixed", {"from 0 s": FIXED}, True),
        ("fixed", {"from 0 s": replace(FIXED, changes_per_hour=12.1)}, False),
        ("promise", {"from 0 s": REACHED}, True),
        ("promise", {"from 0 s": replace(REACHED, good=0.9731)}, False),
        ("promise", {"from 0 s": replace(REACHED, parts=(0.99,) * 5 + (0.949,))}, False),
        ("energy", {"from 0 s": replace(REACHED, serving_mj=102.5)}, True),
        ("energy", {"from 0 s": replace(REACHED, serving_mj=102.7)}, False),
        ("cold", {"an hour": replace(REACHED, parts=(0.799,) + (1.0,) * 5)}, False),
        ("long", {"12 h": replace(REACHED, misses={"held:shortfall": 3})}, True),
        ("long", {"12 h": replace(REACHED, misses={"held:scaling_in_progress": 1})}, False),
    ],
)
def test_a_target_is_met_by_its_figures(target: str, found: dict[str, RunFigures], met: bool) -> None:
    assert TARGETS[target].judge(found)[1] is met
    assert f"| {'yes' if met else 'no'} |" in table({target: found})


def test_one_tick_apart_in_one_window_misses_the_target_of_ticks() -> None:
    found = dict.fromkeys(TARGETS["ticks"].runs, REACHED)
    assert TARGETS["ticks"].judge(found)[1]
    for off in (replace(REACHED, gpu_hours=94.0 * 1.051), replace(REACHED, good=REACHED.good - 0.0051)):
        text, met = TARGETS["ticks"].judge({**found, f"{next(iter(WINDOWS))}, 5 s": off})
        assert not met
        assert "-0.51" in text or "+5.1%" in text


def test_every_run_is_a_command_that_simulate_takes() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.register(parser.add_subparsers())
    for target in TARGETS.values():
        for options in target.runs.values():
            assert parser.parse_args(["simulate", *options.split()])
