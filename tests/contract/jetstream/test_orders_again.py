"""Operators' commands keep their order when their stream is lost or put back from a backup: the newest counts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from bus_schemas import v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.api import ask
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from bus_schemas.streams import CONTROL
from bus_schemas.v1 import Message
from planner.adapters.jetstream_link import BusLink
from planner.core.power.effective_budget import MAX_COMMANDS
from tests.contract.bus import bench, until


class Ear:
    """What a planner's inbox would hear."""

    def __init__(self) -> None:
        self.orders: list[tuple[int, float]] = []
        self.acks: list[str] = []

    def received(self, message: Message, sequence: int) -> None:
        if isinstance(message, v1.BudgetChange):
            self.orders.append((sequence, message.budget_watts))
        if isinstance(message, v1.PowerAck):
            self.acks.append(message.node)


async def order(bus: Bus, watts: float) -> None:
    change = v1.BudgetChange(time=datetime.now(UTC), site="row-1", budget_watts=watts)
    await publish(bus, bus.subjects.control_budget("row-1"), change, f"order-{watts}")


async def test_a_cut_counts_although_its_stream_began_again_with_smaller_numbers() -> None:
    async with bench() as (_, bus):
        ear = Ear()
        listening = asyncio.create_task(BusLink(bus, "me", 5.0).listen(ear))
        try:
            for watts in (3000.0, 2900.0, 2800.0):
                await order(bus, watts)
            await until(lambda: len(ear.orders) == 3, "three orders")
            await ask(bus, "$JS.API.STREAM.DELETE.WATTSCALE_CONTROL")
            await stream_admin.apply(bus)
            await order(bus, 2900.0)  # what a backup still held comes first
            await order(bus, 1000.0)
            await until(lambda: any(watts == 1000.0 for _, watts in ear.orders), "the cut")
            assert max(ear.orders)[1] == 1000.0, f"the newest order must have the highest number: {ear.orders}"
            assert [watts for _, watts in ear.orders] == [3000.0, 2900.0, 2800.0, 1000.0], "no command is new twice"
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def answer(node: str) -> v1.PowerAck:
    return v1.PowerAck(
        time=datetime.now(UTC),
        node=node,
        decision_id=7,
        applied_decision_id=7,
        epoch=1,
        status=v1.AckStatus.APPLIED,
        gpus=(v1.GpuInForce(gpu="GPU-1", requested_watts=0.0, enforced_watts=0.0),),
    )


async def test_no_role_answers_or_orders_in_anothers_name() -> None:
    """Rights are by subject: an agent that may publish for its node only must not free the watts of another."""
    async with bench() as (_, bus):
        ear = Ear()
        listening = asyncio.create_task(BusLink(bus, "me", 5.0).listen(ear))
        try:
            await publish(bus, bus.subjects.ack_power("node-1"), answer("node-2"), "forged")
            forged = v1.BudgetChange(time=datetime.now(UTC), site="row-1", budget_watts=9000.0)
            await publish(bus, bus.subjects.control_budget("row-2"), forged, "forged-order")
            await publish(bus, bus.subjects.ack_power("node-1"), answer("node-1"), "true")
            await order(bus, 1000.0)
            await until(lambda: ear.acks and ear.orders, "what is true")
            assert (ear.acks, [watts for _, watts in ear.orders]) == (["node-1"], [1000.0])
            async with BusLink(bus, "me", 5.0).lead() as term:
                past = await term.past()
            told = [message for message, _ in past.last_messages]
            assert [m.node for m in told if isinstance(m, v1.PowerAck)] == ["node-1"]
            assert [m.budget_watts for m in told if isinstance(m, v1.BudgetChange)] == [1000.0]
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def test_an_order_without_an_end_never_ages_away() -> None:
    """A planner that takes the lead months later must find the cut that is still in force."""
    async with bench() as (_, bus):
        info = await bus.js.stream_info(CONTROL)
        assert not info.config.max_age
        assert (info.config.max_msgs_per_subject or 0) >= MAX_COMMANDS, "as many as the ledger keeps"
