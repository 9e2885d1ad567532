"""Acknowledgements of a connector whose observer is cancelled while one of them is being stored."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.connectors import scaling_channel
from agent.connectors.scaling_channel import ScalingChannel
from agent.core.scaling.scaling_types import PoolCount, ScalingPhase, ScalingProgress
from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import Durable, keep
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages
from tests.contract.bus import bench, scaling

KEY = ("one", 0)
STARTING = ScalingProgress(KEY, False, ScalingPhase.STARTING)
DONE = ScalingProgress(KEY, complete=True, pools={"prefill": PoolCount(1, 1), "decode": PoolCount(2, 2)})


async def statuses(bus: Bus) -> list[v1.AckStatus]:
    """Of all acknowledgements that are stored."""
    found = await all_messages(bus, bus.subjects.ack_scaling("prod"))
    return [one.message.status for one in found if isinstance(one.message, v1.ScalingAck)]


@pytest.mark.parametrize(("cut", "after"), [(DONE, DONE), (STARTING, DONE)])
async def test_what_is_cut_off_after_it_was_stored_is_stored_once(
    cut: ScalingProgress, after: ScalingProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench() as (_, bus):
        await publish(bus, bus.subjects.decision_scaling("prod"), scaling("prod", 0), "decision-0")
        keeper = asyncio.create_task(keep(bus, lambda: [Durable.scaling(bus, "prod")], 0.5))
        channel = ScalingChannel(bus, "prod", "test")
        running = asyncio.create_task(channel.run())
        try:
            await asyncio.wait_for(channel.started.wait(), 60)
            with monkeypatch.context() as patched:

                async def stored_and_cut_off(*args: Any) -> None:
                    await publish(*args)
                    raise asyncio.CancelledError

                patched.setattr(scaling_channel, "publish", stored_and_cut_off)
                with pytest.raises(asyncio.CancelledError):
                    await channel.report(cut)
            await channel.report(after)
            expected = [v1.AckStatus.ACCEPTED] * (2 if cut is STARTING else 1)
            assert await statuses(bus) == [*expected, v1.AckStatus.APPLIED]
        finally:
            running.cancel()
            keeper.cancel()
            await asyncio.gather(running, keeper, return_exceptions=True)
