"""The plan records that power limits come from, over a real server."""

from __future__ import annotations

import asyncio
import logging

import pytest

from agent.connectors.kubernetes import planned_power
from agent.connectors.kubernetes.planned_power import PlannedPower
from bus_schemas import v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.publisher import publish
from deploy.nats.embedded import EmbeddedServer
from tests.contract.bus import WHEN, connected, until


async def test_a_record_is_received_once_although_the_streams_came_late(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(planned_power, "CHECK_S", 0.02)
    caplog.set_level(logging.WARNING)
    woken: list[int] = []
    async with EmbeddedServer(None) as server, connected(server.url) as bus:
        planned = PlannedPower(bus, "prod", 0.0, lambda: woken.append(1))
        task = asyncio.create_task(planned.run())
        try:
            await until(lambda: caplog.text.count("power limits wait") >= 3, "three attempts without streams")
            await stream_admin.apply(bus)
            subject = bus.subjects.telemetry_plan("prod")
            record = v1.PlanRecord(time=WHEN, deployment="prod", decision_id=0, pools={})
            await publish(bus, subject, record, "first")
            await until(lambda: woken, "the first record")
            before = len(woken)
            for number in range(10):
                await publish(bus, subject, record, f"later-{number}")
            await until(lambda: len(woken) >= before + 10, "the later records")
            # One wake for each, and one more where the first record was both received and read.
            assert len(woken) <= before + 11
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
