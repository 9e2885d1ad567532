"""What is wrong around a planner is named by it and by `wattscale status`, on a real bus."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bus_schemas import codec
from bus_schemas.jetstream.publisher import publish
from planner.domain.config import OperationMode, PlannerConfig
from planner.runtime.clock import SteadyClock
from planner.runtime.service import PlannerService
from planner.runtime.telemetry.bus_watch import QUIET_S
from planner.runtime.telemetry.health import HealthServer
from planner.runtime.telemetry.instruments import Instruments
from tests.command_line import wattscale
from tests.contract.bus import until
from tests.doubles.fleet import Fleet
from tests.integration.planner.stage import NAME, SITE, Stage, config, ended, running, staged


async def shows(url: str, words: str) -> bool:
    return words in (await wattscale("status", "--nats-url", url)).out


async def test_planners_with_different_budgets_are_named(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, running(stage, "one", lease_ttl_s=30.0) as one:
        await until(lambda: one.vitals.epoch is not None and one.vitals.ticks > 0, "the first to lead")
        stage.config = replace(stage.config, sites=config(budget_watts=9000).sites)
        async with running(stage, "two", lease_ttl_s=30.0) as two:
            await until(lambda: bool(two.bus_watch.problems()), "the second to compare")
            (problem,) = two.bus_watch.problems()
            assert (problem.code, problem.who) == ("other_budget", SITE)
            assert problem.text == f"site {SITE}: 4,000 W in the settings of the leader one, 9,000 W in ours"
            words = f"site {SITE}: 4,000 W in the settings of the leader one, 9,000 W in those of two"
            await until(lambda: shows(stage.server.url, words), "the status command to name both")


async def test_a_second_agent_and_a_flood_are_named(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, running(stage, "one", lease_ttl_s=30.0) as one:
        await until(lambda: one.vitals.ticks > 0, "ticks")
        subject = stage.bus.subjects.telemetry_node("node-0")
        node = stage.fleet.gpus["node-0"]

        async def report() -> None:
            while True:
                other = stage.fleet._seen("node-0", node).model_copy(update={"boot": "another"})
                await stage.bus.nc.publish(
                    subject, codec.encode(other), headers=codec.headers(other, f"x{id(other)}", "x")
                )
                await asyncio.sleep(0.2)

        async def flood() -> None:
            while True:
                for _ in range(50):
                    await stage.bus.nc.publish(stage.bus.subjects.telemetry_node("node-9"), b"{}")
                await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(report()), asyncio.create_task(flood())]
        try:
            await until(
                lambda: (
                    {(problem.code.value, problem.who) for problem in one.bus_watch.problems()}
                    >= {("second_agent", "node-0"), ("flooding", "node-9")}
                ),
                "both to be named",
            )
            for words in ("node-0: two agents report for this node", "node-9: floods the bus"):
                await until(partial(shows, stage.server.url, words), f"status to name: {words}")
            ticks = one.vitals.ticks
            await until(lambda: one.vitals.ticks > ticks + 2, "ticks beside the flood")
        finally:
            await ended(*tasks)


class MuteFleet(Fleet):
    """Workers run, and no agent reports."""

    async def _telemetry(self) -> None:
        await asyncio.Event().wait()


@asynccontextmanager
async def led_for_long(folder: Path, settings: PlannerConfig) -> AsyncIterator[tuple[Stage, PlannerService]]:
    """A planner that has led for longer than nodes may be quiet, by its clock, and has ticked since."""
    passed_s = 0.0
    clock = SteadyClock(steady=lambda: time.monotonic() + passed_s)
    async with staged(folder, settings, MuteFleet) as stage, running(stage, lease_ttl_s=30.0, clock=clock) as one:
        await until(lambda: one.vitals.ticks > 0, "ticks")
        passed_s = QUIET_S + 1.0
        later_s = clock()
        await until(lambda: (one.vitals.last_tick_s or 0.0) >= later_s, "a tick after the pause")
        yield stage, one


async def test_a_leader_without_a_node_is_named_everywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "planner")
    words = "leading, and no node has reported for "
    metric = 'wattscale_planner_problem{problem="no_node",who=""} 1.0'

    def logged(start: str) -> bool:
        return any(record.getMessage().startswith(start + words) for record in caplog.records)

    async with led_for_long(tmp_path, config()) as (stage, one):
        page = Instruments(stage.config, one.vitals, problems=one.bus_watch.problems)
        health = HealthServer(
            one.vitals,
            lambda: True,
            page.page,
            host="127.0.0.1",
            port=0,
            interval_s=0.5,
            live_within_s=60.0,
            clock=time.time,
            bus_watch=one.bus_watch,
        )
        try:
            assert metric in page.page().decode()
            assert any(text.startswith(words) for text in health.status()["problems"])
            await until(lambda: logged("problem: "), "the log")
            await until(lambda: shows(stage.server.url, f"! {words}"), "the status command")
            assert (await wattscale("status", "--nats-url", stage.server.url)).code == 1
            report = stage.fleet._seen("node-0", stage.fleet.gpus["node-0"])
            await publish(stage.bus, stage.bus.subjects.telemetry_node("node-0"), report, "first")
            await until(lambda: not one.bus_watch.problems(), "the report to be received")
            assert metric not in page.page().decode()
            await until(lambda: logged("no longer a problem: "), "the log of the end")
        finally:
            page.close()


WITHOUT_POWER = {
    "no site": replace(config(), sites={}),
    "all watched": replace(
        config(), deployments={NAME: replace(config().deployments[NAME], mode=OperationMode.ADVISORY)}
    ),
}


@pytest.mark.parametrize("why", WITHOUT_POWER)
async def test_a_planner_that_decides_no_caps_is_well_without_a_node(tmp_path: Path, why: str) -> None:
    async with led_for_long(tmp_path, WITHOUT_POWER[why]) as (stage, one):
        assert one.bus_watch.problems() == ()
        done = await wattscale("status", "--json", "--nats-url", stage.server.url)
        assert json.loads(done.out)["problems"] == []
        assert done.code == 0
