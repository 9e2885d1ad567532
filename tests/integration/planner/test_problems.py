"""What is wrong around a planner is named by it and by `wattscale status`, on a real bus."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

from bus_schemas import codec
from tests.command_line import wattscale
from tests.contract.bus import until as wait_until
from tests.integration.planner.stage import SITE, config, ended, running, staged, until


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
            await wait_until(lambda: shows(stage.server.url, words), "the status command to name both")


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
                await wait_until(partial(shows, stage.server.url, words), f"status to name: {words}")
            ticks = one.vitals.ticks
            await until(lambda: one.vitals.ticks > ticks + 2, "ticks beside the flood")
        finally:
            await ended(*tasks)
