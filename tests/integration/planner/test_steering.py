"""Commands on a running site: unknown names are refused, and a cut is reported when it is in force."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.command_line import Done, wattscale
from tests.contract.bus import until
from tests.integration.planner.stage import NAME, SITE, Stage, running, staged


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("WATTSCALE_NATS_URL", raising=False)


async def on(stage: Stage, *words: str) -> Done:
    return await wattscale(*words, "--nats-url", stage.server.url)


async def test_commands_for_unknown_names_are_refused_with_the_nearest_name(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.load_rps = 20.0
        async with running(stage):
            await until(lambda: bool(stage.decided) and bool(stage.fleet.power), "a first decision")
            node = next(iter(stage.fleet.power)).node
            # The first decision may be one on power; names of deployments are known from the records that follow it.
            async with asyncio.timeout(60):
                while NAME not in (await on(stage, "status")).out:
                    await asyncio.sleep(0.1)
            for words, hint in (
                (("budget", "set", "3000", "--site", "row-2"), f"did you mean '{SITE}'"),
                (("budget", "release", "--site", "row-2"), f"did you mean '{SITE}'"),
                (("budget", "set", "3000"), "--site is needed"),
                (("deployment", "pause", "prod-chatt"), f"did you mean '{NAME}'"),
                (("deployment", "pin", NAME, "prefil=1"), "did you mean 'prefill'"),
                (("deployment", "pin", NAME, "prefill=99"), "bounds of"),
                (("deployment", "pin", NAME, "prefill=99999999999999999999999"), "more replicas"),
                (("node", "remove", node + "x"), f"did you mean '{node}'"),
                (("node", "remove", node), "is alive"),
            ):
                done = await on(stage, *words)
                assert done.code == 2, (words, done)
                assert hint in done.one_line(), (words, done)
            assert (await on(stage, "budget", "set", "3000", "--site", "row-2", "--force")).code == 0
            assert (await on(stage, "deployment", "pin", NAME, "prefill=1")).err == ""


async def test_a_cut_is_reported_when_it_is_in_force(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.load_rps = 20.0
        async with running(stage) as service:
            await until(lambda: bool(stage.decided) and bool(stage.fleet.power), "a first decision")
            done = await on(stage, "budget", "set", "3000", "--site", SITE, "--wait")
            assert (done.code, done.err) == (0, "")
            assert "caps now" in done.out.splitlines()[-1]
            assert "of 3,000 W after" in done.out.splitlines()[-1]
            assert stage.fleet.enforced_watts <= 3000
            shown = json.loads((await on(stage, "budget", "show", "--json")).out)[0]
            assert (shown["budget_watts"], shown["commands"][-1]["state"]) == (3000.0, "in_force")
            status = await on(stage, "status", "--json")
            assert json.loads(status.out)["problems"] == [], status
            assert (status.code, json.loads(status.out)["leader"]) == (0, "one")
            assert service is not None
        # No planner leads any more: the command is stored, and is not reported as in force.
        done = await on(stage, "budget", "set", "2500", "--site", SITE, "--wait", "--wait-s", "1")
        assert done.code == 1
        assert "not in force" in done.one_line()
        shown = json.loads((await on(stage, "budget", "show", "--json")).out)[0]
        assert (shown["budget_watts"], shown["commands"][-1]["state"]) == (3000.0, "pending")
        status = await on(stage, "status")
        assert (status.code, "! no planner leads" in status.out) == (1, True)
        impossible = await on(stage, "budget", "set", "100", "--site", SITE)
        assert impossible.code == 0
        assert f"note: the smallest caps of site {SITE} come to" in impossible.err
