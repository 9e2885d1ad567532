"""A request for decisions that a killed server took with it is sent again within the lease of what was decided last."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

from agent.adapters.bus_channel import NodeChannel, heartbeat_s
from bus_schemas.errors import BusAwayError
from bus_schemas.jetstream.consumers import Durable, ensure
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.pull import HEARTBEAT_S, MISSED_BEATS, Pull
from bus_schemas.v1 import PowerAck, PowerDecision
from tests.contract.bus import applied, bench, connected, outgoing, power, until

NODE = "node-7.example"


@pytest.mark.parametrize("lease_s", [3.0, 10.0, 30.0, 60.0])
def test_a_lost_request_is_noticed_before_half_a_lease_has_passed(lease_s: float) -> None:
    assert heartbeat_s(lease_s) * MISSED_BEATS <= lease_s / 2
    assert heartbeat_s(lease_s) <= HEARTBEAT_S


async def test_the_heartbeat_that_an_agent_asks_for_follows_its_lease() -> None:
    """The test's client sees what the agent asks of the server."""
    async with bench() as (server, bus), connected(server.url, "node") as node:
        durable = Durable.power(bus, NODE)
        await ensure(bus, durable)
        asked_s: list[float] = []

        async def noted(message: object) -> None:
            asked_s.append(json.loads(message.data)["idle_heartbeat"] / 1e9)  # type: ignore[attr-defined]

        await bus.nc.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{durable.stream}.{durable.name}", cb=noted)
        await bus.nc.flush()
        done: list[int] = []

        async def carry_out(decision: PowerDecision) -> PowerAck:
            done.append(decision.decision_id)
            return applied(decision)

        async def decide(number: int, lease_s: float) -> None:
            item = outgoing(bus, power(NODE, number))
            assert isinstance(item.message, PowerDecision)
            short = item.message.model_copy(update={"valid_for_s": lease_s})
            await publish(bus, item.subject, short, item.msg_id)

        listening = asyncio.create_task(NodeChannel(node, NODE, "boot/one").listen(carry_out))
        try:
            await until(lambda: asked_s == [HEARTBEAT_S], "the first request")
            await decide(0, 6.0)
            await until(lambda: asked_s == [HEARTBEAT_S, 1.0], "a request with the lease's heartbeat")
            await decide(1, 6.0)
            await until(lambda: done == [0, 1], "the second decision")
            await decide(2, 120.0)
            await until(lambda: asked_s == [HEARTBEAT_S, 1.0, HEARTBEAT_S], "the usual heartbeat for a long lease")
            assert done == [0, 1, 2]
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def test_a_pull_waits_through_heartbeats_and_reports_their_end() -> None:
    async with bench() as (server, bus):
        durable = Durable.power(bus, NODE)
        await ensure(bus, durable)
        async with Pull(bus, durable.stream, durable.name, heartbeat_s=0.5) as pull:
            waiting = asyncio.create_task(pull.next())
            opened_s = pull.last_sign_s
            await until(lambda: pull.last_sign_s > opened_s, "a heartbeat")
            assert not waiting.done()
            os.kill(server.pid, signal.SIGSTOP)
            try:
                with pytest.raises(BusAwayError):
                    await asyncio.wait_for(waiting, 60)
            finally:
                os.kill(server.pid, signal.SIGCONT)
