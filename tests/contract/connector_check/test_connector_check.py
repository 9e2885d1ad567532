"""`wattscale connector check`: our own connectors pass it, and each way to break the contract is found."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from agent.connectors.virtual.etcd_gateway import EtcdAccess, EtcdAwayError, EtcdGateway, put
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.leader_election import Leadership
from deploy.connector_check.check_run import CheckResult, CheckSettings, ConnectorCheck
from tests.contract.bus import bench
from tests.contract.connector_check import actuators
from tests.contract.connector_check.actuators import Honest
from tests.contract.dynamo.etcd_process import EtcdProcess
from tests.free_ports import free_port

NAME = "prod"
SETTINGS = CheckSettings(NAME, {"prefill": ("prefill", 1, 2), "decode": ("decode", 1, 2)}, timeout_s=60.0)
BROKEN = {
    actuators.Silent: "completes a decision",
    actuators.CompletesTwice: "nothing is completed twice",
    actuators.GoesBack: "completed ids never go back",
    actuators.CompletesAnother: "a decision completes itself only",
    actuators.CompletesLate: "a late completion never counts",
    actuators.DoesTheImpossible: "what nobody can do is refused",
    actuators.TakesTheOutdated: "outdated ids are ignored",
    actuators.GivesNoReason: "a refusal has a reason",
    actuators.PhasesBackwards: "phases move forward",
    actuators.CountsWrong: "counts are true",
    actuators.NamesAnother: "every acknowledgement names a decision",
    actuators.TwoAtOnce: "one actuator answers",
    actuators.DiesOfBytes: "survives bytes that are no message",
    actuators.KnowsOneIncarnation: "begins again at 0 with a new incarnation",
}


def broken(results: list[CheckResult]) -> dict[str, tuple[str, ...]]:
    return {one.name: one.breaches for one in results if one.breaches}


@asynccontextmanager
async def acting(actuator: Honest) -> AsyncIterator[None]:
    task = asyncio.create_task(actuator.run())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def checked(bus: Bus, actuator: Honest) -> list[CheckResult]:
    check = ConnectorCheck(bus, replace(SETTINGS, deployment=actuator.deployment))

    def hurry() -> None:
        check.settings = replace(check.settings, timeout_s=0.5)  # nothing more comes

    actuator.on_death = hurry
    async with acting(actuator):
        return await check.run()


async def test_an_honest_actuator_passes() -> None:
    async with bench() as (_, bus):
        results = await checked(bus, Honest(bus, NAME))
        assert broken(results) == {}
        assert [one.name for one in results if one.skipped] == ["goes on after its own restart"]


async def test_each_breach_is_found() -> None:
    async with bench() as (_, bus):
        kinds = list(BROKEN)
        results = await asyncio.gather(*(checked(bus, kind(bus, kind.__name__)) for kind in kinds))
        for kind, found in zip(kinds, map(broken, results), strict=True):
            assert BROKEN[kind] in found, (kind, found)


async def test_an_actuator_that_forgets_at_its_restart_is_found() -> None:
    async with bench() as (_, bus):
        running = [Honest(bus, NAME)]
        tasks = [asyncio.create_task(running[0].run())]

        async def restart() -> None:
            tasks[0].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            tasks[:] = [asyncio.create_task(Honest(bus, NAME).run())]

        try:
            found = broken(await ConnectorCheck(bus, SETTINGS, restart).run())
            assert "completed ids never go back" in found, found
        finally:
            tasks[0].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def command(*words: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", "connector", "check", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ},
    )
    out, log = await process.communicate()
    return process.returncode, out.decode(), log.decode()


async def test_beside_a_planner_that_leads_nothing_is_sent() -> None:
    async with bench() as (server, bus):
        await Leadership(bus, "planner-0", 30).acquire()
        code, out, log = await command(NAME, "--nats-url", server.url)
        assert (code, out) == (2, "")
        assert "planner planner-0 leads on this bus" in log


@pytest.mark.long
async def test_our_local_connector_passes_the_command(tmp_path: Path) -> None:
    async with bench() as (server, _):
        serve = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
        pool = {"command": serve, "gpus_per_replica": 0, "health_path": "/"}
        settings = {
            "deployment": NAME,
            "nats": {"servers": [server.url]},
            "state_folder": str(tmp_path / "state"),
            "first_port": free_port(),
            "http": {"port": "none"},
            "on_exit": "drain",
            "pools": {"prefill": pool, "decode": pool},
        }
        file = tmp_path / "connector.yaml"
        file.write_text(yaml.safe_dump(settings))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main", "connector", "local", "--settings", str(file))
        )
        try:
            code, out, log = await command(NAME, "--nats-url", server.url, "--json", "--timeout-s", "90")
            assert code == 0, out + log
            assert json.loads(out)["ok"]
        finally:
            process.terminate()
            await process.wait()


@pytest.mark.long
async def test_our_virtual_connector_passes_the_command(tmp_path: Path) -> None:
    async with EtcdProcess(tmp_path / "etcd") as etcd, bench() as (server, _):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main", "connector", "virtual", "--deployment", NAME),
            *("--etcd", etcd.url, "--nats-url", server.url, "--port", "none"),
        )

        async def complete() -> None:
            async with EtcdGateway(EtcdAccess((etcd.url,))) as gateway:
                while True:
                    try:
                        found, _ = await gateway.snapshot((f"v1/{NAME}/planner/",))
                        if (newest := found.get(f"v1/{NAME}/planner/decision_id")) is not None:
                            key = f"v1/{NAME}/planner/scaled_decision_id"
                            if key not in found or found[key].text != newest.text:
                                await gateway.transact([], [put(key, newest.text)])
                    except EtcdAwayError:
                        pass
                    await asyncio.sleep(0.05)

        client = asyncio.create_task(complete())
        try:
            code, out, log = await command(NAME, "--nats-url", server.url, "--timeout-s", "90")
            assert code == 0, out + log
            assert out.splitlines()[-1].startswith("all ")
        finally:
            client.cancel()
            process.terminate()
            await process.wait()
            await asyncio.gather(client, return_exceptions=True)
