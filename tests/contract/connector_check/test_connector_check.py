"""`wattscale connector check`: our own connectors pass it, and each way to break the contract is found."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.connectors.virtual.etcd_gateway import EtcdAccess, EtcdAwayError, EtcdGateway, put
from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last
from deploy.cli.run import connector_check
from deploy.connector_check.check_run import CheckResult, CheckSettings, ConnectorCheck
from deploy.connector_check.planner_lease import CannotCheckError, alone
from tests.contract.bus import bench, until
from tests.contract.connector_check import actuators
from tests.contract.connector_check.actuators import Honest
from tests.contract.dynamo.etcd_process import EtcdProcess
from tests.contract.redis.redis_process import RedisProcess
from tests.free_ports import free_port
from tests.running_processes import gone

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


async def test_no_planner_leads_during_a_check_and_one_leads_after_it() -> None:
    async with bench() as (_, bus):
        planner = Leadership(bus, "planner-0", 30)
        async with alone(bus):
            assert not await planner.try_acquire()
            assert planner.leader is not None
            assert planner.leader.holder.startswith("connector check on ")
        assert await planner.try_acquire()
        assert planner.led_until is None


async def test_a_check_that_loses_the_lease_ends_in_one_line() -> None:
    async with bench() as (_, bus):
        lost = asyncio.Event()

        async def body() -> None:
            async with alone(bus):
                try:
                    await asyncio.Event().wait()
                finally:
                    lost.set()

        checking = asyncio.create_task(body())

        async def held() -> bool:
            return await last(bus, bus.subjects.lease()) is not None

        await until(held, "the lease to be held")
        usurper = v1.Lease(time=datetime.now(UTC), holder="planner-0", ttl_s=60.0)
        await publish(bus, bus.subjects.lease(), usurper, "usurper")
        with pytest.raises(CannotCheckError, match=r"lost the planner's lease .*stop all planners"):
            await asyncio.wait_for(checking, 40)
        assert lost.is_set()


def restarting(*words: str) -> Callable[[], Awaitable[None]]:
    return partial(connector_check._run, words)


@pytest.mark.parametrize(
    ("words", "timeout_s", "why"),
    [
        (("sh", "-c", "exit 3"), 60.0, "sh -c 'exit 3' ended with exit code 3"),
        (("no-such-command",), 60.0, "no-such-command: No such file or directory"),
        (("sleep", "1000"), 0.5, "the restart is not over after 0.5 s: it was ended"),
    ],
    ids=["fails", "missing", "hangs"],
)
async def test_a_restart_that_does_not_succeed_is_one_failed_line(
    words: tuple[str, ...], timeout_s: float, why: str
) -> None:
    async with bench() as (_, bus):
        check = ConnectorCheck(bus, replace(SETTINGS, timeout_s=timeout_s), restarting(*words))
        check._renew()
        await check._restarts()
        assert check.results == [CheckResult("goes on after its own restart", (why,))]


async def test_a_restart_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    noted = tmp_path / "pids"
    script = f"sleep 1000 & echo $$ $! >{noted}.new; mv {noted}.new {noted}; wait"
    running = asyncio.create_task(connector_check._run(["sh", "-c", script]))
    await until(noted.exists, "the command to run")
    pids = [int(one) for one in noted.read_text().split()]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await until(lambda: all(gone(pid) for pid in pids), "the command and what it started to end")


def test_the_last_line_counts_what_was_tried() -> None:
    kept, skipped, broken = CheckResult("a"), CheckResult("b", skipped="why"), CheckResult("c", ("x",))
    last_line = {
        (kept, kept): "all 2 rules kept",
        (kept, skipped): "all 1 rules kept, 1 not tried",
        (kept, skipped, broken): "1 of 2 rules broken, 1 not tried",
    }
    for results, words in last_line.items():
        assert connector_check._table(results).splitlines()[-1] == words


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


@pytest.mark.long
async def test_our_connector_over_redis_passes_the_command(tmp_path: Path) -> None:
    async with RedisProcess(tmp_path / "redis") as redis, bench() as (server, _):
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "deploy.cli.main",
                "connector",
                "virtual",
                "--deployment",
                NAME,
                "--store",
                "redis",
            ),
            *("--model", "m", "--redis", redis.url, "--nats-url", server.url, "--port", "none"),
        )

        client: Any = redis.client()

        async def carry_out() -> None:
            key = f"dynamo:planner:target:{{{NAME}:m}}"
            while True:
                asked = await client.hgetall(key)
                report = {f"{role}_active": asked[role] for role in ("prefill", "decode") if role in asked}
                report |= {"prefill_stable": "true", "decode_stable": "true", "observed_at": str(time.time())}
                await client.hset(key, mapping=report)
                await asyncio.sleep(0.05)

        actuator = asyncio.create_task(carry_out())
        try:
            code, out, log = await command(NAME, "--nats-url", server.url, "--timeout-s", "90")
            assert code == 0, out + log
            assert out.splitlines()[-1].startswith("all ")
        finally:
            actuator.cancel()
            process.terminate()
            await process.wait()
            await asyncio.gather(actuator, return_exceptions=True)
            await client.aclose()
