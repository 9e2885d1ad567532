"""The one way in which the long-running commands start their event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from deploy.event_loop import run, until_signal
from planner.domain.config import PlannerConfig


async def loop_module() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_uvloop_runs_where_it_is_installed() -> None:
    pytest.importorskip("uvloop")
    assert run(loop_module()) == "uvloop"


def test_asyncios_own_loop_runs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(loop_module()).startswith("asyncio.")


def test_the_planner_is_run_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvloop")
    import argparse

    from deploy.cli.run import planner

    seen = []

    async def run_planner(*_: object) -> None:
        seen.append(await loop_module())

    parser = argparse.ArgumentParser()
    planner.register(parser.add_subparsers())
    monkeypatch.setattr("deploy.compose.planner_service.run_planner", run_planner)
    monkeypatch.setattr("planner.runtime.telemetry.logs.set_up", lambda *_: None)
    monkeypatch.setattr(planner, "_composed", lambda _: PlannerConfig())
    args = parser.parse_args(["planner", "run", "--set", "sites.@.budget_watts=1"])
    assert args.run(args) == 0
    assert seen == ["uvloop"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_work_in_order(number: signal.Signals) -> None:
    ended = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    run(until_signal(work()))
    assert ended == [number]


def test_an_error_of_work_is_raised_also_where_a_signal_ends_it() -> None:
    async def fails() -> None:
        raise OSError("taken")

    async def fails_while_it_ends() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            raise OSError("not closed")

    with pytest.raises(OSError, match="taken"):
        run(until_signal(fails()))
    with pytest.raises(OSError, match="not closed"):
        run(until_signal(fails_while_it_ends()))


def test_work_that_ends_is_not_waited_for() -> None:
    run(until_signal(asyncio.sleep(0)))
