"""The power agent on a real server, with simulated GPUs: decisions come in, limits change, answers go out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from nats.aio.subscription import Subscription

from agent.core.ownership import OWNERS_FIRST_S
from agent.drivers.simulated import SimulatedDriver
from agent.ports import DriverErrorKind, GpuOwner, GpuOwners, MonotonicClock, NoOwners, OwnersUnknownError
from agent.runtime.service import PowerAgentService
from agent.runtime.settings import PowerAgentSettings
from bus_schemas import codec
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last
from bus_schemas.streams import DECISIONS
from bus_schemas.subjects import power_consumer
from bus_schemas.v1 import AckStatus, DeadLetter, GpuCap, GpuHealth, NodeTelemetry, PowerAck, PowerDecision
from tests.contract.bus import until
from tests.integration.agent.server import NatsServer
from tests.integration.agent.wire import PlannerSide, connected

NODE = "node-7.example"
GPU = f"GPU-{NODE}-00"
OTHER = f"GPU-{NODE}-01"
SETTINGS = PowerAgentSettings(node=NODE, telemetry_interval_s=0.1, call_timeout_s=20.0)


@asynccontextmanager
async def serving(
    url: str,
    driver: SimulatedDriver,
    owners: GpuOwners | None = None,
    clock: MonotonicClock = monotonic,
    **changes: Any,
) -> AsyncIterator[PowerAgentService]:
    """An agent of its own connection, stopped afterwards."""
    async with connected(url, "agent") as bus:
        service = PowerAgentService(replace(SETTINGS, **changes), bus, driver, owners or NoOwners(), clock)
        task = asyncio.create_task(service.run())
        try:
            yield service
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with NatsServer(tmp_path) as server:
        yield server


@pytest.fixture
async def planner(server: NatsServer) -> AsyncIterator[PlannerSide]:
    async with connected(server.url, "planner") as bus:
        side = PlannerSide(bus, NODE)
        await side.prepare()
        yield side


@pytest.fixture
def driver() -> SimulatedDriver:
    return SimulatedDriver.of(NODE, 2)


async def test_a_decision_is_carried_out_and_answered_with_what_is_in_force(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    async with serving(server.url, driver):
        number = await planner.decide({GPU: 400.0, OTHER: 350.5})
        ack = await planner.answered(lambda ack: ack.applied_decision_id == number)
    assert ack.status is AckStatus.APPLIED
    assert {gpu.gpu: gpu.enforced_watts for gpu in ack.gpus} == {GPU: 400.0, OTHER: 350.5}
    assert driver.gpus[OTHER].enforced_mw == 350_500
    assert ack.clock_s is not None
    assert ack.boot


async def test_what_is_in_force_is_adopted_before_anything_is_decided(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    driver.set_limit(GPU, 333_000)
    driver.writes.clear()
    async with serving(server.url, driver):
        seen = await planner.telemetry_where(lambda telemetry: bool(telemetry.gpus))
    assert [gpu.enforced_watts for gpu in seen.gpus] == [333.0, 700.0]
    assert driver.writes == []


async def test_lowers_are_written_before_raises(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    async with serving(server.url, driver):
        await planner.decide({GPU: 300.0, OTHER: 600.0})
        await planner.answered(lambda ack: ack.applied_decision_id == 0)
        driver.writes.clear()
        await planner.decide({GPU: 600.0, OTHER: 300.0})
        await planner.answered(lambda ack: ack.applied_decision_id == 1)
    assert driver.writes == [(OTHER, 300_000), (GPU, 600_000)]


async def refusal(answers: Subscription, timeout_s: float = 60.0) -> PowerAck:
    """The first refusal among the answers to come."""
    async with asyncio.timeout(timeout_s):
        while True:
            ack = codec.decode_as(PowerAck, (await answers.next_msg(timeout=timeout_s)).data)
            if ack.status is AckStatus.REJECTED:
                return ack


async def test_an_older_epoch_changes_nothing_and_is_answered_with_what_is_in_force(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    async with serving(server.url, driver):
        await planner.decide({GPU: 400.0}, epoch=7)
        await planner.answered(lambda ack: ack.applied_decision_id == 0)
        answers = await planner.bus.nc.subscribe(planner.bus.subjects.ack_power(NODE))
        await planner.decide({GPU: 650.0}, epoch=6)
        # What is in force is reported right after the refusal, so the newest answer may be that report already.
        ack = await refusal(answers)
    assert "older_epoch" in ack.reason
    assert ack.epoch == 7
    assert driver.gpus[GPU].enforced_mw == 400_000


async def test_without_a_renewal_the_caps_step_down_to_the_fallback(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    async with serving(server.url, driver):
        await planner.decide({GPU: 600.0, OTHER: 250.0}, valid_for_s=4.0, fallback_watts=300.0)
        await planner.answered(lambda ack: ack.applied_decision_id == 0)
        await until(lambda: driver.gpus[GPU].enforced_mw == 300_000, "the fallback")
        ack = await planner.answered(lambda ack: ack.gpus[0].enforced_watts == 300.0)
    assert ack.status is not AckStatus.FAILED or ack.applied_decision_id == 0
    assert [mw for gpu, mw in driver.writes if gpu == GPU] == [600_000, 300_000]
    assert [mw for gpu, mw in driver.writes if gpu == OTHER] == [250_000]


async def test_every_acknowledgement_of_a_decision_carries_its_trace_context(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    trace = f"00-{'4b' * 16}-{'0f' * 8}-01"

    async def carried() -> str | None:
        stored = await last(planner.bus, planner.bus.subjects.ack_power(NODE))
        return stored.traceparent if stored is not None else None

    async with serving(server.url, driver):
        await planner.decide({GPU: 600.0}, valid_for_s=4.0, fallback_watts=300.0, traceparent=trace)
        await planner.answered(lambda ack: ack.applied_decision_id == 0)
        assert await carried() == trace
        # Without a renewal the cap falls back, which the agent reports by itself.
        await planner.answered(lambda ack: any(gpu.enforced_watts == 300.0 for gpu in ack.gpus))
        assert await carried() == trace
        await planner.decide({GPU: 500.0})
        await planner.answered(lambda ack: ack.applied_decision_id == 1)
        assert await carried() is None


async def test_a_failing_card_is_named_and_stops_no_other(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    driver.gpus[GPU].faults = {"set_limit": DriverErrorKind.NO_PERMISSION}
    async with serving(server.url, driver):
        await planner.decide({GPU: 400.0, OTHER: 400.0})
        ack = await planner.answered(lambda ack: ack.decision_id == 0)
    by_gpu = {gpu.gpu: gpu for gpu in ack.gpus}
    assert (ack.status, ack.applied_decision_id) == (AckStatus.PARTIAL, -1)
    assert by_gpu[GPU].health is GpuHealth.UNCAPPABLE
    assert (by_gpu[OTHER].health, by_gpu[OTHER].enforced_watts) == (GpuHealth.OK, 400.0)


async def test_a_reset_is_repaired_and_reported(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    async with serving(server.url, driver) as service:
        await planner.decide({GPU: 400.0})
        await planner.answered(lambda ack: ack.applied_decision_id == 0)
        driver.gpus[GPU].reset(asyncio.get_running_loop().time())
        await until(lambda: driver.gpus[GPU].enforced_mw == 400_000, "the limit to be set again")
        assert service.reconciler.counts.resets == 1


async def test_a_foreign_value_is_overwritten_counted_and_named(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    async with serving(server.url, driver) as service:
        await planner.decide({GPU: 400.0})
        await planner.answered(lambda ack: ack.applied_decision_id == 0)
        driver.set_limit(GPU, 650_000)
        ack_or_telemetry = await planner.telemetry_where(
            lambda telemetry: "another process set 650 W" in telemetry.gpus[0].error
        )
        assert ack_or_telemetry.gpus[0].error.endswith("where the agent had set 400 W")
        await until(lambda: driver.gpus[GPU].enforced_mw == 400_000, "the cap to be set again")
        assert service.reconciler.counts.drifts == 1


async def test_owners_are_reported_with_each_gpu(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    class Fixed:
        async def owners(self) -> dict[str, GpuOwner]:
            return {GPU: GpuOwner("ns-graph", "decode", "decode", "w-1", "ns/pod-1")}

    async with serving(server.url, driver, Fixed()):
        seen = await planner.telemetry_where(lambda telemetry: telemetry.gpus[0].pod != "")
    assert (seen.gpus[0].deployment, seen.gpus[0].role, seen.gpus[1].pod) == ("ns-graph", "decode", "")


async def test_no_gpu_is_reported_as_free_before_its_owner_could_be_read(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    listed = asyncio.Event()

    class Late:
        async def owners(self) -> dict[str, GpuOwner]:
            if not listed.is_set():
                raise OwnersUnknownError("pods not listed yet")
            return {GPU: GpuOwner("ns-graph", "decode", "decode", "w-1", "ns/pod-1")}

    reported: list[str] = []

    def owned(telemetry: NodeTelemetry) -> bool:
        reported.append(telemetry.gpus[0].pod)
        return telemetry.gpus[0].pod != ""

    async with serving(server.url, driver, Late()) as service:
        await planner.decide({GPU: 400.0})
        await planner.answered(lambda ack: ack.applied_decision_id == 0)
        assert service.ready, "decisions are carried out and answered in the meantime"
        listed.set()
        await planner.telemetry_where(owned)
    assert reported == ["ns/pod-1"]


class Unlisted:
    """Owners that cannot be read; ``asked``: how often."""

    asked = 0

    async def owners(self) -> dict[str, GpuOwner]:
        self.asked += 1
        raise OwnersUnknownError("pods not listed yet")


async def test_a_node_that_no_planner_knows_is_reported_although_owners_cannot_be_read(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    ahead_s = [0.0]
    async with serving(server.url, driver, Unlisted(), clock=lambda: monotonic() + ahead_s[0]) as service:
        await until(lambda: service.ready, "the agent is ready")
        assert await planner.telemetry() is None
        ahead_s[0] = OWNERS_FIRST_S
        seen = await planner.telemetry_where(lambda telemetry: len(telemetry.gpus) == len(driver.gpus))
    assert {gpu.pod for gpu in seen.gpus} == {""}


async def test_a_node_that_has_answered_is_not_reported_without_owners(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver
) -> None:
    """A restarted agent gets no decision again that it has answered: that alone does not make its node a new one."""
    ahead_s, owners = [0.0], Unlisted()
    async with serving(server.url, driver, Unlisted()):
        await planner.decide({GPU: 400.0})
        await planner.answered(lambda ack: ack.applied_decision_id == 0)
    async with serving(server.url, driver, owners, clock=lambda: monotonic() + ahead_s[0]) as service:
        await until(lambda: service.ready, "the agent is ready")
        ahead_s[0] = OWNERS_FIRST_S
        before = owners.asked
        await until(lambda: owners.asked > before + 5, "owners were asked for several times since")
        assert await planner.telemetry() is None


async def test_a_lease_too_short_for_the_agents_pace_is_reported(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(server.url, driver, telemetry_interval_s=0.5):
        await planner.decide({GPU: 400.0}, valid_for_s=30.0)
        await planner.answered(lambda ack: ack.applied_decision_id == 0)
        assert "unsafe" not in caplog.text
        await planner.decide({GPU: 400.0}, valid_for_s=1.0)
        await planner.answered(lambda ack: ack.applied_decision_id == 1)
    assert "a lease of 1 s ends before a renewal" in caplog.text


async def test_a_dry_run_logs_and_sets_nothing(
    server: NatsServer, planner: PlannerSide, driver: SimulatedDriver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        async with serving(server.url, driver, dry_run=True):
            await planner.decide({GPU: 400.0})
            ack = await planner.answered(lambda ack: ack.decision_id == 0)
    assert (driver.writes, ack.status, ack.reason) == ([], AckStatus.FAILED, "dry run: nothing is set")
    assert f"would set GPU {GPU} to 400.000 W" in caplog.text


async def test_the_agent_works_again_after_the_server_was_killed(
    planner: PlannerSide, server: NatsServer, driver: SimulatedDriver
) -> None:
    async with serving(server.url, driver):
        await planner.decide({GPU: 400.0})
        await planner.answered(lambda ack: ack.applied_decision_id == 0)
        await server.kill()
        await server.start()
        await until(lambda: planner.bus.connected, "the planner to be connected again")
        await planner.prepare()
        await planner.decide({GPU: 500.0})
        ack = await planner.answered(lambda ack: ack.applied_decision_id == 1, timeout_s=60.0)
    assert {gpu.gpu: gpu.enforced_watts for gpu in ack.gpus}[GPU] == 500.0


async def test_a_decision_meant_for_another_node_is_buried_not_carried_out(
    planner: PlannerSide, server: NatsServer, driver: SimulatedDriver
) -> None:
    cap = GpuCap(gpu=GPU, cap_watts=300.0, fallback_watts=200.0)
    stray = PowerDecision(
        time=datetime.now(UTC), node="other", decision_id=0, incarnation="one", epoch=1, valid_for_s=30, caps=(cap,)
    )
    letters = planner.bus.subjects.deadletter(DECISIONS, power_consumer(NODE))
    async with serving(server.url, driver):
        await publish(planner.bus, planner.bus.subjects.decision_power(NODE), stray, "stray")
        async with asyncio.timeout(60):
            while (found := await last(planner.bus, letters)) is None:
                await asyncio.sleep(0.02)
    assert isinstance(found.message, DeadLetter)
    assert "meant for node other" in found.message.reason
    assert driver.writes == []
