"""What an outside orchestrator sees: a decision waits until it is carried out, whatever happened before."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bus_schemas import v1
from bus_schemas.client import RECHECK_S, VirtualConnectorClient
from bus_schemas.errors import BadNameError, BusUnreachableError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages
from tests.contract.bus import bench, connected, outgoing, scaling, until

NAME = "prod-llama"


async def decide(bus: Bus, number: int, **options: Any) -> None:
    item = outgoing(bus, scaling(NAME, number, **options))
    await publish(bus, item.subject, item.message, item.msg_id)


async def decide_later(bus: Bus, number: int) -> None:
    """After the client has looked at the bus a second time."""
    await asyncio.sleep(RECHECK_S * 1.2)
    await decide(bus, number)


async def test_wait_get_complete() -> None:
    async with bench() as (_, bus):
        client = VirtualConnectorClient(bus.nc, NAME)
        assert await client.get() is None
        with pytest.raises(TimeoutError):
            await client.wait(timeout_s=0.2)
        waiting = asyncio.create_task(client.wait())
        await asyncio.sleep(0.1)
        await decide(bus, 0)
        await asyncio.wait_for(waiting, 20)
        await client.wait(timeout_s=60)
        decision = await client.get()
        assert decision is not None
        assert (decision.num_prefill_workers, decision.num_decode_workers) == (1, 2)
        await client.progress(decision, 1, 3)
        await client.wait(timeout_s=60)
        await client.complete(decision)
        with pytest.raises(TimeoutError):
            await client.wait(timeout_s=0.2)
        ack = await client.scaled()
        assert ack is not None
        assert (ack.scaled_decision_id, ack.status, ack.replicas) == (0, "applied", {"prefill": 1, "decode": 2})


async def test_acknowledgements_carry_the_trace_context_of_their_decision() -> None:
    trace = f"00-{'4b' * 16}-{'0f' * 8}-01"
    async with bench() as (_, bus):
        client = VirtualConnectorClient(bus.nc, NAME)
        item = outgoing(bus, scaling(NAME, 0))
        await publish(bus, item.subject, item.message, item.msg_id, trace)
        decision = await client.get()
        assert decision is not None
        assert client.traceparent(decision) == trace
        await client.progress(decision, 1, 2)
        await client.complete(decision)
        acks = await all_messages(bus, bus.subjects.ack_scaling(NAME))
        assert [stored.traceparent for stored in acks] == [trace, trace]
        await decide(bus, 1)
        newer = await client.get()
        assert newer is not None
        assert client.traceparent(newer) is None
        assert client.traceparent(decision) is None


async def test_a_failure_that_may_be_tried_again_still_waits_and_another_does_not() -> None:
    async with bench() as (_, bus):
        client = VirtualConnectorClient(bus.nc, NAME)
        await decide(bus, 0)
        decision = await client.get()
        assert decision is not None
        await client.fail(decision, "no free GPU")
        await client.wait(timeout_s=60)
        await client.fail(decision, "no free GPU")
        await client.fail(decision, "no such pool", retryable=False)
        with pytest.raises(TimeoutError):
            await client.wait(timeout_s=0.2)
        ack = await client.scaled()
        assert ack is not None
        assert (ack.scaled_decision_id, ack.reason, ack.retryable) == (-1, "no such pool", False)
        await decide(bus, 1)
        await client.wait(timeout_s=60)


async def test_a_client_that_starts_again_knows_what_was_done() -> None:
    async with bench() as (server, bus):
        await decide(bus, 0)
        first = VirtualConnectorClient(bus.nc, NAME)
        decision = await first.get()
        assert decision is not None
        await first.complete(decision)
        async with connected(server.url, "again") as other:
            again = VirtualConnectorClient(other.nc, NAME)
            with pytest.raises(TimeoutError):
                await again.wait(timeout_s=0.3)
            await decide(bus, 0, incarnation="two")
            await again.wait(timeout_s=60)


async def test_completing_an_older_decision_does_not_go_back() -> None:
    async with bench() as (_, bus):
        client = VirtualConnectorClient(bus.nc, NAME)
        old, new = scaling(NAME, 3), scaling(NAME, 4)
        await client.complete(new)
        await client.complete(old)
        ack = await client.scaled()
        assert ack is not None
        assert ack.scaled_decision_id == 4


async def test_waiting_outlives_a_killed_server() -> None:
    async with bench() as (server, bus), connected(server.url, "orchestrator") as mine:
        client = VirtualConnectorClient(mine.nc, NAME, timeout_s=1.0)
        waiting = asyncio.create_task(client.wait())
        await asyncio.sleep(0.1)
        await server.kill()
        await server.start()
        await until(lambda: bus.connected, "the planner")
        await decide(bus, 0)
        await asyncio.wait_for(waiting, 30)


async def test_each_decision_comes_once_and_of_several_only_the_newest() -> None:
    async with bench() as (_, bus):
        client = VirtualConnectorClient(bus.nc, NAME)
        await decide(bus, 0)
        seen = []
        async with asyncio.timeout(60):
            async for decision in client.decisions():
                seen.append(decision.decision_id)
                if decision.decision_id == 0:
                    await client.fail(decision, "no free GPU")
                    await decide(bus, 1)
                    await decide(bus, 2)
                    continue
                if decision.decision_id == 2:
                    # Left without an answer: a second look at the bus brings the next one, not this one again.
                    following = asyncio.create_task(decide_later(bus, 3))
                    continue
                break
        await following
        assert seen == [0, 2, 3]


async def test_decisions_go_on_after_a_killed_server_and_end_with_their_task() -> None:
    async with bench() as (server, bus), connected(server.url, "orchestrator") as mine:
        client = VirtualConnectorClient(mine.nc, NAME, timeout_s=1.0)
        seen: list[int] = []

        async def orchestrate() -> None:
            async for decision in client.decisions():
                seen.append(decision.decision_id)
                await client.complete(decision)

        working = asyncio.create_task(orchestrate())
        await decide(bus, 0)
        await until(lambda: seen == [0], "the first decision")
        await server.kill()
        await server.start()
        await until(lambda: bus.connected, "the planner")
        await decide(bus, 1)
        await until(lambda: seen == [0, 1], "the decision after the restart")
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(working, 20)


async def test_the_old_name_of_the_time_limit_warns_and_works() -> None:
    async with bench() as (_, bus):
        client = VirtualConnectorClient(bus.nc, NAME)
        with pytest.warns(DeprecationWarning, match="timeout_s"), pytest.raises(TimeoutError):
            await client.wait(timeout=0.1)


async def test_a_connection_closed_for_good_ends_the_wait() -> None:
    async with bench() as (server, _), connected(server.url, "orchestrator") as mine:
        client = VirtualConnectorClient(mine.nc, NAME, timeout_s=0.5)
        waiting = asyncio.create_task(client.wait())
        await asyncio.sleep(0.1)
        await mine.nc.close()
        with pytest.raises(BusUnreachableError, match="closed"):
            await asyncio.wait_for(waiting, 30)
        with pytest.raises(BusUnreachableError, match="closed"):
            await client.wait(timeout_s=60)
        with pytest.raises(BusUnreachableError, match="closed"):
            await anext(aiter(client.decisions()))


async def test_only_whole_decisions_of_this_deployment_are_handed_out() -> None:
    async with bench() as (_, bus):
        client = VirtualConnectorClient(bus.nc, NAME)
        await bus.nc.request(bus.subjects.decision_scaling(NAME), b"rubbish")
        assert await client.get() is None
        await decide(bus, 0)
        found = await client.get()
        assert isinstance(found, v1.ScalingDecision)


def test_a_deployment_that_no_subject_can_carry_is_refused_at_once() -> None:
    from nats.aio.client import Client

    with pytest.raises(BadNameError):
        VirtualConnectorClient(Client(), "a b")


def test_the_client_needs_pydantic_and_nats_py_only(tmp_path: Path) -> None:
    code = (
        "import sys, bus_schemas.client, bus_schemas.jetstream.consumer\n"
        "ours = {'planner', 'agent', 'deploy', 'numpy', 'uvloop', 'prometheus_client', 'yaml'}\n"
        "print(sorted(ours & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
