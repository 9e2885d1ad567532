"""Dynamo's unmodified coordinator decides, and our planner carries it out: real etcd, nats-server and connector."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest

from agent.connectors.virtual.etcd_gateway import EtcdAccess, EtcdGateway, prefix_range
from bus_schemas import v1
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages
from planner.domain.config import Covers, PlannerConfig
from tests.contract.bus import until
from tests.contract.dynamo.environment import runtime_python
from tests.contract.dynamo.etcd_process import EtcdProcess
from tests.contract.dynamo.kept_process import KeptProcess
from tests.integration.planner.stage import DECODE, NAME, PREFILL, SITE, Stage, config, running, staged

PLANNER = Path(__file__).with_name("dynamo_planner.py")
WAIT_S = 80.0


class DynamoPlanner:
    """A process with the unmodified coordinator. ``async with`` it; killed at the end."""

    def __init__(self, etcd_url: str) -> None:
        self._environment = {**os.environ, "ETCD_ENDPOINTS": etcd_url, "ETCD_LEASE_TTL": "5"}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            str(runtime_python()), str(PLANNER), NAME, env=self._environment, stdin=pipe, stdout=pipe
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def call(self, line: str) -> tuple[int, int, int, bool]:
        """One line; the answer is id, prefill, decode, ready."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n".encode())
        answer = await asyncio.wait_for(self._process.stdout.readline(), WAIT_S)
        number, prefill, decode, ready = map(int, answer.split())
        return number, prefill, decode, bool(ready)

    async def decide(self, prefill: int, decode: int) -> int:
        """Publish a decision; its id."""
        number, *counts, _ = await self.call(f"{prefill} {decode}")
        assert counts == [prefill, decode], "the coordinator dropped the decision"
        return number

    async def completed(self) -> None:
        """Wait until the coordinator takes its decision for carried out."""

        async def ready() -> bool:
            return (await self.call("ready"))[3]

        await until(ready, "the coordinator to be ready", WAIT_S, every_s=0.2)


class PinnedSite:
    """A stage with our planner, an etcd, and the connector's process."""

    def __init__(self, stage: Stage, etcd: EtcdProcess, gateway: EtcdGateway, connector: KeptProcess) -> None:
        self.stage, self.etcd, self.gateway, self.connector = stage, etcd, gateway, connector

    @property
    def workers(self) -> tuple[int, int]:
        return len(self.stage.fleet.workers[PREFILL]), len(self.stage.fleet.workers[DECODE])

    async def pins(self) -> list[v1.DeploymentControl]:
        bus = self.stage.bus
        found = await all_messages(bus, bus.subjects.control_deployment(NAME))
        return [one.message for one in found if isinstance(one.message, v1.DeploymentControl)]

    async def open_for(self, words: str) -> str:
        """Why a decision is open, once the reason holds ``words``."""

        async def reason() -> str | None:
            text = await self.key(f"wattscale/virtual/{NAME}/open")
            return text if text and words in text else None

        found = await until(reason, f"a decision that is open for {words}", WAIT_S)
        assert found is not None
        return found

    async def has_workers(self, prefill: int, decode: int) -> None:
        await until(lambda: self.workers == (prefill, decode), f"{prefill} and {decode} workers", WAIT_S)

    async def has_lost_its_keys(self) -> None:
        """Wait for the end of a lease of the Dynamo planner."""

        async def vanished() -> bool:
            return await self.key(f"v1/{NAME}/planner/decision_id") is None

        await until(vanished, "the lease to end", WAIT_S)

    async def key(self, key: str) -> str | None:
        found, _ = await self.gateway.snapshot([key])
        return found[key].text if key in found else None


def few_watts(budget_watts: int) -> PlannerConfig:
    """The budget is of the workers' GPUs, which need at least 200 W each."""
    usual = config(interval_s=0.5, budget_watts=budget_watts)
    site = replace(usual.sites[SITE], covers=Covers.WORKERS, deployments=frozenset({NAME}), expected_gpus=8)
    return replace(usual, sites={SITE: site})


@asynccontextmanager
async def pinned_site(folder: Path, planner: PlannerConfig | None = None) -> AsyncIterator[PinnedSite]:
    async with AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(EtcdProcess(folder / "etcd"))
        stage = await stack.enter_async_context(staged(folder, planner or config(interval_s=0.5)))
        await stack.enter_async_context(running(stage))
        gateway = await stack.enter_async_context(EtcdGateway(EtcdAccess((etcd.url,))))
        command = ["-m", "deploy.cli.main", "connector", "virtual", "--direction", "from-dynamo", "--port", "none"]
        command += ["--deployment", NAME, "--etcd", etcd.url, "--nats-url", stage.server.url]
        connector = KeptProcess(sys.executable, *command, environment={})
        await stack.enter_async_context(connector.kept())
        yield PinnedSite(stage, etcd, gateway, connector)


@pytest.mark.long
async def test_a_dynamo_planners_decisions_are_carried_out_by_ours_while_parts_are_killed(tmp_path: Path) -> None:
    runtime_python()
    async with pinned_site(tmp_path) as site, DynamoPlanner(site.etcd.url) as first:
        assert await first.decide(2, 3) == 0
        await first.completed()
        assert site.workers == (2, 3)
        site.connector.kill()
        assert await first.decide(1, 2) == 1
        await first.completed()
        assert site.workers == (1, 2)
        await site.etcd.kill()
        await site.etcd.start()
        await first.decide(2, 2)
        await first.completed()
        assert site.workers == (2, 2)
        # Its planner is gone for longer than its lease: its ids begin again below what is completed already.
        await first.kill()
        await site.has_lost_its_keys()
        assert site.workers == (2, 2), "what it decided stays"
        async with DynamoPlanner(site.etcd.url) as second:
            assert await second.decide(3, 1) == 0
            await site.has_workers(3, 1)
            await second.completed()
            assert await site.key(f"v1/{NAME}/planner/scaled_decision_id") == "0"
            # More than the pool may have: open, with the reason, until the next decision takes its place.
            await second.decide(9, 1)

            reason = await site.open_for("max_replicas")
            assert reason == "decision 1: prefill has 4 of 9: its max_replicas is 4"
            assert not (await second.call("ready"))[3]
        pins = await site.pins()
        assert [dict(one.replicas) for one in pins] == [
            {"prefill": prefill, "decode": decode} for prefill, decode in ((2, 3), (1, 2), (2, 2), (3, 1), (9, 1))
        ]
        assert len({one.command_id for one in pins}) == len(pins)
        assert {one.issued_by for one in pins} == {f"dynamo planner {NAME}"}


@pytest.mark.long
async def test_a_planner_that_restarts_within_its_lease_and_two_planners_with_one_id_lose_nothing(
    tmp_path: Path,
) -> None:
    runtime_python()
    async with pinned_site(tmp_path) as site:
        async with DynamoPlanner(site.etcd.url) as first:
            assert await first.decide(2, 3) == 0
            await first.completed()
        async with DynamoPlanner(site.etcd.url) as second:
            # It has read the keys, so that the same target writes nothing; then they vanish with the first one's lease.
            assert await second.decide(2, 3) == 0
            await site.has_lost_its_keys()
            assert await second.decide(1, 2) == 1
            await second.completed()
            assert site.workers == (1, 2)
            async with DynamoPlanner(site.etcd.url) as rival:
                assert await rival.decide(3, 1) == 2
                await rival.completed()
                assert site.workers == (3, 1)
                assert await second.decide(2, 1) == 2, "the same id, which is completed already"
                await site.has_workers(2, 1)
                await second.completed()
            # The completion does not vanish with who wrote it: without it the coordinator drops every decision.
            scaled = await site.gateway._ask("/v3/kv/range", prefix_range(f"v1/{NAME}/planner/scaled_decision_id"))
            assert [one.get("lease", "0") for one in scaled["kvs"]] == ["0"]
        assert [dict(one.replicas) for one in await site.pins()] == [
            {"prefill": prefill, "decode": decode} for prefill, decode in ((2, 3), (1, 2), (3, 1), (2, 1))
        ]


@pytest.mark.long
async def test_a_pin_that_the_budget_cannot_carry_stays_open_and_says_why_until_it_can(tmp_path: Path) -> None:
    runtime_python()
    async with pinned_site(tmp_path, few_watts(1500)) as site, DynamoPlanner(site.etcd.url) as dynamo:
        await dynamo.decide(1, 2)
        await dynamo.completed()
        await dynamo.decide(2, 4)
        reason = await site.open_for(" has ")
        assert "decision 1: " in reason
        assert sum(site.workers) * 200 <= 1500
        assert not (await dynamo.call("ready"))[3]
        bus = site.stage.bus
        change = v1.BudgetChange(time=datetime.now(UTC), site=SITE, budget_watts=4000.0)
        await publish(bus, bus.subjects.control_budget(SITE), change, "more-watts")
        await dynamo.completed()
        assert site.workers == (2, 4)
        assert len(await site.pins()) == 2
