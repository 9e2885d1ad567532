"""The page on operating a site: its commands, in its order, against planners and a nats-server."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from bus_schemas.jetstream.connect import Bus
from planner.runtime.config.settings import SiteSettings
from planner.runtime.service import PlannerService
from tests.command_line import Done, wattscale
from tests.contract.bus import until
from tests.integration.planner.stage import NAME, SITE, Stage, ended, staged
from tests.shared_data import ROOT

PAGE = ROOT / "deploy" / "OPERATIONS.md"
WAIT_S = 60.0


def section(title: str) -> str:
    (found,) = [part for part in PAGE.read_text(encoding="utf-8").split("\n## ") if part.startswith(title)]
    return found


def blocks(title: str) -> list[list[str]]:
    """The commands of one section, by block, each without the program's name."""
    found = re.findall(r"```bash\n(.*?)```", section(title), re.DOTALL)
    return [[line.removeprefix("wattscale ") for line in block.splitlines()] for block in found]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("WATTSCALE_NATS_URL", raising=False)


@dataclass
class StartedPlanner:
    """One planner on a connection of its own."""

    service: PlannerService
    task: asyncio.Task[None]
    bus: Bus

    async def kill(self) -> None:
        """End it as a crash ends a process: its connection goes first, so that it gives no lease back."""
        await self.bus.nc.close()
        await ended(self.task)
        await self.bus.close()


@asynccontextmanager
async def planners(stage: Stage, *holders: str) -> AsyncIterator[list[StartedPlanner]]:
    """Planners that were started in this order; the first leads before the second is started."""
    started = []
    try:
        for holder in holders:
            bus = await stage.another_bus()
            service = stage.service(bus, holder)
            started.append(StartedPlanner(service, asyncio.create_task(service.run()), bus))
            await until(lambda: any(one.service.vitals.ticks > 0 for one in started), "a leader with a tick", WAIT_S)
        yield started
    finally:
        for one in started:
            await one.kill()


async def typed(stage: Stage, commands: list[str]) -> list[Done]:
    return [await wattscale(*shlex.split(command), "--nats-url", stage.server.url) for command in commands]


async def printed(stage: Stage, command: str, words: str) -> bool:
    return words in (await typed(stage, [command]))[0].out


async def shown(stage: Stage, words: str) -> None:
    """Wait until the planner has ticked with what was commanded: `budget show` has these words."""
    await until(lambda: printed(stage, "budget show", words), f"budget show to have {words!r}", WAIT_S)


async def test_budgets_a_cut_and_a_pinned_deployment(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, planners(stage, "one"):
        stage.load_rps = 20.0
        await until(lambda: bool(stage.fleet.power), "a first decision on power", WAIT_S)
        await shown(stage, "4000 W now, by configuration and schedule")
        await until(lambda: printed(stage, "status", NAME), "the deployment to be known", WAIT_S)
        (commands,) = blocks("Budgets")
        done = await typed(stage, commands)
        assert [one.code for one in done] == [0] * 5, done
        assert "by configuration and schedule" in done[0].out
        assert "a chiller is out" in done[3].out
        assert "the grid asks for an hour" in done[3].out
        await shown(stage, "4000 W now, by configuration and schedule")

        cut, impossible = blocks("Drill: cut")
        status, in_force, explained, decided = await typed(stage, cut)
        assert "leader: one" in status.out, status
        assert (in_force.code, in_force.err) == (0, "")
        assert re.search(r"caps now .* of 3,000 W after", in_force.out.splitlines()[-1])
        assert stage.fleet.enforced_watts <= 3000
        assert (explained.code, decided.code) == (0, 0), (explained, decided)
        assert NAME in explained.out
        (too_low,) = await typed(stage, impossible[:1])
        await shown(stage, "100 W now")
        verified, released, mended = await typed(stage, impossible[1:])
        assert f"the smallest caps of site {SITE} come to" in too_low.err
        assert verified.code == 1
        assert re.search(r"fail +smallest caps", verified.out), verified.out
        assert (released.code, mended.code) == (0, 0), mended.out

        (held,) = blocks("Holding")
        assert [one.code for one in await typed(stage, held)] == [0] * 4
        ((report,),) = [await typed(stage, block) for block in blocks("Afterwards")]
        assert report.code == 0, report
        assert SITE in report.out


async def test_the_leader_is_killed(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, planners(stage, "one", "two") as (one, two):
        await until(lambda: bool(stage.fleet.power), "a first decision on power", WAIT_S)
        leader, other = (one, two) if one.service.vitals.epoch is not None else (two, one)
        ticks = other.service.vitals.ticks
        await leader.kill()
        ((status, verify),) = blocks("Drill: kill")
        await typed(stage, [status])
        await until(lambda: other.service.vitals.ticks > ticks, "the other to lead", WAIT_S)
        name = "two" if other is two else "one"
        await until(lambda: printed(stage, status, f"leader: {name}"), "status to name the other", WAIT_S)
        (verified,) = await typed(stage, [verify])
        assert verified.code == 0, verified.out


@pytest.mark.long
async def test_the_bus_is_lost_and_comes_back(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, planners(stage, "one") as (one,):
        await until(lambda: bool(stage.fleet.power), "a first decision on power", WAIT_S)
        without, again = blocks("Drill: lose")
        await stage.server.stop()
        for done in await typed(stage, without):
            assert done.code == 3, done
            assert done.one_line()
        await stage.server.start()
        ticks = one.service.vitals.ticks
        await until(lambda: one.service.vitals.ticks > ticks + 1, "ticks again", WAIT_S)
        verified, cut, released = await typed(stage, again)
        assert verified.code == 0, verified.out
        assert (cut.code, cut.err) == (0, ""), cut
        assert released.code == 0, released


def test_the_schedule_is_one_that_a_site_takes() -> None:
    (written,) = re.findall(r"```yaml\n(.*?)```", section("Budgets"), re.DOTALL)
    site = SiteSettings.model_validate(yaml.safe_load(written)["sites"]["row-1"])
    assert site.schedule is not None
    assert [window.budget_watts for window in site.schedule.windows] == [14000]
