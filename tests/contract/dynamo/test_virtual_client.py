"""Dynamo's unmodified client carries out the decisions of our planner in order, while every part is killed twice.

Planner, connector, client, etcd and nats-server are processes; GPUs and engines are doubles that follow what the client
completed. Each decision answers an operator's pin, so that there are as many as the test needs.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from bus_schemas import v1
from bus_schemas.errors import BusError
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import StoredMessage, all_messages, last
from bus_schemas.jetstream.watch import follow
from tests.contract.bus import until
from tests.contract.dynamo.environment import runtime_python
from tests.contract.dynamo.etcd_process import EtcdProcess
from tests.contract.dynamo.kept_process import KeptProcess
from tests.doubles.fleet import Fleet
from tests.integration.planner.stage import DECODE, NAME, PREFILL, Stage, staged
from tests.integration.planner.test_commands import settings

PARTS = ("etcd", "connector", "bus", "planner", "client")
CLIENT = Path(__file__).with_name("virtual_client.py")
WAIT_S = 120.0


def kills(decisions: int) -> dict[int, str]:
    """By decision: what is killed while it is made or carried out. Each part twice, spread over all decisions."""
    return {(place + 1) * decisions // (2 * len(PARTS) + 1): part for place, part in enumerate(PARTS * 2)}


class ClientsFleet(Fleet):
    """Has the workers that the client has started, as the acknowledgements say; decides and acknowledges nothing."""

    async def _scale(self) -> None:
        async for stored in follow(self.bus, self.bus.subjects.all_of("ack", "scaling"), 0):
            ack = stored.message
            if isinstance(ack, v1.ScalingAck) and ack.status is v1.AckStatus.APPLIED:
                for pool, count in ack.replicas.items():
                    self.place(pool, count)


def pinned(number: int) -> dict[str, int]:
    """The counts of a pin; never those of the one before."""
    return {PREFILL: 1 + (number + 1) % 2, DECODE: 1 + (number + 1) % 3}


def replicas(decision: v1.ScalingDecision) -> dict[str, int]:
    """The counts of a decision."""
    return {name: pool.replicas for name, pool in decision.pools.items()}


class ServedClient:
    """A stage on which planner, connector and Dynamo's client run as processes that come back when they end."""

    def __init__(self, stage: Stage, etcd: EtcdProcess, folder: Path) -> None:
        self.stage, self.etcd = stage, etcd
        content = yaml.safe_load(settings(folder, stage).read_text())
        content["interval_s"] = 0.25
        content["deployments"][NAME]["wait_for"] = "complete"
        file = folder / "waiting.yaml"
        file.write_text(yaml.safe_dump(content))
        command = (sys.executable, "-m", "deploy.cli.main")
        self.planner = KeptProcess(*command, "planner", "run", "-c", str(file), environment={})
        flags = ("--deployment", NAME, "--port", "none", "--etcd", etcd.url, "--nats-url", stage.server.url)
        self.connector = KeptProcess(*command, "connector", "virtual", *flags, environment={})
        environment = {"ETCD_ENDPOINTS": etcd.url, "ETCD_LEASE_TTL": "5"}
        self.client = KeptProcess(str(runtime_python()), str(CLIENT), NAME, environment=environment)

    async def kill(self, part: str | None) -> None:
        """Kill a part, which starts again."""
        match part:
            case "etcd":
                await self.etcd.kill()
                await self.etcd.start()
            case "bus":
                await self.stage.server.kill()
                await self.stage.server.start()
            case "planner":
                self.planner.kill()
            case "connector":
                self.connector.kill()
            case "client":
                self.client.kill()

    async def pin(self, number: int) -> None:
        """Command the counts of one decision, as an operator."""
        bus = self.stage.bus
        command = v1.DeploymentControl(
            time=datetime.now(UTC), deployment=NAME, action="pin", replicas=pinned(number), reason=f"number {number}"
        )
        await publish(bus, bus.subjects.control_deployment(NAME), command, f"pin-{number}")

    async def decided(self, number: int) -> int:
        """Wait for the decision with the counts of a pin; its id. A pin may need two: watts come before workers."""

        async def newest() -> v1.ScalingDecision | None:
            found = await self._last(self.stage.bus.subjects.decision_scaling(NAME))
            return found if isinstance(found, v1.ScalingDecision) and replicas(found) == pinned(number) else None

        found = await until(newest, f"a decision for pin {number}", WAIT_S)
        assert found is not None
        return found.decision_id

    async def completed(self, decision_id: int) -> None:
        """Wait for its acknowledgement."""

        async def newest() -> bool:
            found = await self._last(self.stage.bus.subjects.ack_scaling(NAME))
            return isinstance(found, v1.ScalingAck) and found.scaled_decision_id >= decision_id

        await until(newest, f"the completion of decision {decision_id}", WAIT_S)

    async def _last(self, subject: str) -> v1.Message | None:
        """The last message; None also while the bus is away."""
        try:
            found = await last(self.stage.bus, subject)
        except BusError:
            return None
        return None if found is None else found.message

    async def decisions(self) -> list[StoredMessage]:
        return await all_messages(self.stage.bus, self.stage.bus.subjects.decision_scaling(NAME))

    async def acks(self) -> list[StoredMessage]:
        return await all_messages(self.stage.bus, self.stage.bus.subjects.ack_scaling(NAME))


@asynccontextmanager
async def served_client(folder: Path) -> AsyncIterator[ServedClient]:
    async with AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(EtcdProcess(folder / "etcd"))
        stage = await stack.enter_async_context(staged(folder, fleet_type=ClientsFleet))
        served = ServedClient(stage, etcd, folder)
        for process in (served.connector, served.client, served.planner):
            await stack.enter_async_context(process.kept())
        yield served


@pytest.mark.parametrize(
    "decisions", [pytest.param(20, marks=pytest.mark.long), pytest.param(100, marks=pytest.mark.nightly)]
)
async def test_decisions_are_completed_in_order_while_every_part_is_killed_twice(
    decisions: int, tmp_path: Path
) -> None:
    runtime_python()
    killed = kills(decisions)
    assert sorted(killed.values()) == sorted(PARTS * 2)
    async with served_client(tmp_path) as served:
        for number in range(decisions):
            part = killed.get(number)
            await served.pin(number)
            if part and number < decisions / 2:
                await served.kill(part)  # whether or not our planner has decided yet
            decision_id = await served.decided(number)
            if part and number >= decisions / 2:
                await served.kill(part)  # whether or not the client has the decision yet
            await served.completed(decision_id)
        assert all(process.starts >= 3 for process in (served.planner, served.connector, served.client))
        decided, acked = await served.decisions(), await served.acks()
        made = [one.message for one in decided if isinstance(one.message, v1.ScalingDecision)]
        assert len(made) >= decisions
        assert [one.decision_id for one in made] == list(range(len(made))), "none is lost or repeated"
        applied = [
            one
            for one in acked
            if isinstance(one.message, v1.ScalingAck) and one.message.status == v1.AckStatus.APPLIED
        ]
        acks = [one.message for one in applied if isinstance(one.message, v1.ScalingAck)]
        assert [one.decision_id for one in acks] == list(range(len(made))), "each is completed once, in order"
        assert [one.replicas for one in acks] == [replicas(one) for one in made]
        # Both times are of one server's clock.
        times = [(one.stored_at, next_one.stored_at) for one, next_one in zip(applied, decided[1:], strict=False)]
        assert all(done is not None and decided is not None and done <= decided for done, decided in times)
        external = [one.external_decision_id for one in acks]
        assert None not in external
        assert external == sorted(set(external), key=lambda one: one or 0), "ids never go back"
        # A line can be lost with a client that was killed, or whose etcd was; what it completed stands in etcd.
        seen = [tuple(map(int, line.split())) for line in served.client.printed]
        counts = {ack.external_decision_id: (ack.num_prefill_workers, ack.num_decode_workers) for ack in acks}
        assert all(counts[number] == (prefill, decode) for number, prefill, decode in seen)
        ids = [number for number, _, _ in seen]
        assert ids == sorted(ids)
        assert len(set(ids)) >= len(made) - len(killed)
