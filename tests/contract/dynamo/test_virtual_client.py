"""Dynamo's unmodified client carries out 100 decisions in order, while every part is killed twice."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from bus_schemas import v1
from bus_schemas.errors import BusError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import maintain
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages, last
from deploy.nats.embedded import EmbeddedServer
from tests.contract.bus import connected, scaling, until
from tests.contract.dynamo.environment import runtime_python
from tests.contract.dynamo.etcd_process import EtcdProcess

DECISIONS = 100
KILLS = {8: "etcd", 17: "connector", 26: "bus", 35: "planner", 44: "client"}
KILLS |= {number + 45: part for number, part in KILLS.items()}
CLIENT = Path(__file__).with_name("virtual_client.py")


class KeptProcess:
    """A process that is started again whenever it ends, as a service manager would."""

    def __init__(self, *command: str, environment: dict[str, str]) -> None:
        self._command, self._environment = command, environment
        self._process: asyncio.subprocess.Process | None = None
        self.printed: list[str] = []

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[KeptProcess]:
        task = asyncio.create_task(self._keep())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.kill()
            if self._process is not None:
                await self._process.wait()

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _keep(self) -> None:
        while True:
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env={**os.environ, **self._environment}, stdout=pipe
            )
            assert self._process.stdout is not None
            async for line in self._process.stdout:
                self.printed.append(line.decode().strip())
            await self._process.wait()
            await asyncio.sleep(0.2)


class StandInPlanner:
    """Publishes one decision after the other as ``wait_for: complete`` does; knows only what the streams hold."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def publish_next(self) -> int:
        """Publish the decision after the last one. Returns its id."""
        subject = self._bus.subjects.decision_scaling("prod")
        before = await last(self._bus, subject)
        number = before.message.decision_id + 1 if before and isinstance(before.message, v1.ScalingDecision) else 0
        await publish(self._bus, subject, scaling("prod", number, decode=1 + number % 9), f"decision-{number}")
        return number

    async def has_completed(self, number: int) -> bool:
        """Whether a decision is completed; False also while the bus is away."""
        try:
            ack = await last(self._bus, self._bus.subjects.ack_scaling("prod"))
        except BusError:
            return False
        return ack is not None and isinstance(ack.message, v1.ScalingAck) and ack.message.scaled_decision_id >= number


@pytest.mark.long
async def test_a_hundred_decisions_are_completed_in_order_while_every_part_is_killed_twice(tmp_path: Path) -> None:
    python = runtime_python()
    async with AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(EtcdProcess(tmp_path / "etcd"))
        server = await stack.enter_async_context(EmbeddedServer(tmp_path / "bus"))
        bus = await stack.enter_async_context(connected(server.url))
        await stream_admin.apply(bus)
        keeper = asyncio.create_task(maintain(bus, 0.5))
        stack.callback(keeper.cancel)
        command = ("-m", "deploy.cli.main", "connector", "virtual", "--deployment", "prod", "--port", "none")
        bridge = KeptProcess(sys.executable, *command, "--etcd", etcd.url, "--nats-url", server.url, environment={})
        client = KeptProcess(
            str(python), str(CLIENT), "prod", environment={"ETCD_ENDPOINTS": etcd.url, "ETCD_LEASE_TTL": "5"}
        )
        await stack.enter_async_context(bridge.kept())
        await stack.enter_async_context(client.kept())
        planner = StandInPlanner(bus)
        for number in range(DECISIONS):
            assert await planner.publish_next() == number
            match KILLS.get(number):
                case "etcd":
                    await etcd.kill()
                    await etcd.start()
                case "bus":
                    await server.kill()
                    await server.start()
                case "planner":
                    other = await stack.enter_async_context(connected(server.url))
                    planner = StandInPlanner(other)
                case "connector":
                    bridge.kill()
                case "client":
                    client.kill()

            await until(partial(planner.has_completed, number), f"decision {number} to be completed", timeout_s=80)
        stored = await all_messages(bus, bus.subjects.ack_scaling("prod"))
        acks = [one.message for one in stored if isinstance(one.message, v1.ScalingAck)]
        applied = [ack.decision_id for ack in acks if ack.status is v1.AckStatus.APPLIED]
        assert applied == list(range(DECISIONS))
        assert [ack.scaled_decision_id for ack in acks] == sorted(ack.scaled_decision_id for ack in acks)
        external = [ack.external_decision_id for ack in acks if ack.status is v1.AckStatus.APPLIED]
        assert all(one is not None for one in external)
        assert external == sorted(set(external), key=lambda one: one or 0)
        # A line can be lost with a client that was killed; what it completed stands in etcd.
        seen = [tuple(map(int, line.split())) for line in client.printed]
        assert len(seen) >= DECISIONS - len(KILLS)
        assert {(prefill, decode) for _, prefill, decode in seen} <= {(1, 1 + number % 9) for number in range(9)}
        ids = [one for one, _, _ in seen]
        assert ids == sorted(ids), "ids never go back"
