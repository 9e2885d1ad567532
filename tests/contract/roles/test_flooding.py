"""One agent that floods pushes out neither what other nodes reported nor what planners remember."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus_schemas import codec, v1
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages, last
from bus_schemas.streams import PASSING_BYTES, TELEMETRY, TELEMETRY_BYTES
from deploy.nats.roles import MESSAGE_BYTES
from tests.contract.roles.test_roles import NAME, NODE, OTHER, Guarded, guarded_bus

RECORDS = 50


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded_bus(tmp_path) as found:
        yield found


def report(node: str) -> v1.NodeTelemetry:
    return v1.NodeTelemetry(time=datetime.now(UTC), node=node, gpus=())


async def test_a_flood_of_telemetry_leaves_other_nodes_and_plan_records_alone(guarded: Guarded) -> None:
    planner, good, bad = [await guarded.as_(role) for role in ("planner", "agent-8", "agent")]
    await publish(good, good.subjects.telemetry_node(OTHER), report(OTHER), "good")
    plan = planner.subjects.telemetry_plan(NAME)
    for number in range(RECORDS):
        record = v1.PlanRecord(time=datetime.now(UTC), deployment=NAME, site="row", decision_id=number)
        await publish(planner, plan, record, f"r{number}")
    mine, body = bad.subjects.telemetry_node(NODE), b" " * (TELEMETRY_BYTES - 1024)
    for _ in range(2 * PASSING_BYTES // len(body)):
        await bad.nc.publish(mine, body)
    await bad.nc.flush()
    await publish(bad, mine, report(NODE), "end")
    assert await last(planner, planner.subjects.telemetry_node(OTHER)) is not None
    assert len(await all_messages(planner, plan)) == RECORDS
    state = (await planner.js.stream_info(TELEMETRY)).state
    assert state.bytes < PASSING_BYTES / 4


async def test_what_is_larger_than_a_role_may_send_never_reaches_a_stream(guarded: Guarded) -> None:
    planner, bad = await guarded.as_("planner"), await guarded.as_("agent")
    mine = bad.subjects.telemetry_node(NODE)
    with pytest.raises(Exception, match=r"maximum|exceed"):
        await bad.js.publish(mine, b" " * (TELEMETRY_BYTES + 1), timeout=5)
    before = (await planner.js.stream_info(TELEMETRY)).state.last_seq
    cut_off = asyncio.Event()
    bad.on_reconnect.add(cut_off.set)
    await bad.nc.publish(mine, b" " * (MESSAGE_BYTES + 1))
    async with asyncio.timeout(60):
        # With or without the server's reason: a connection that is reset may lose it.
        await cut_off.wait()
    assert (await planner.js.stream_info(TELEMETRY)).state.last_seq == before


async def test_the_largest_real_messages_fit(guarded: Guarded) -> None:
    agent = await guarded.as_("agent")
    gpus = tuple(
        v1.GpuTelemetry(
            gpu=f"GPU-{number:036d}",
            draw_watts=612.345,
            requested_watts=700.0,
            enforced_watts=700.0,
            default_watts=700.0,
            min_watts=200.0,
            max_watts=700.0,
            deployment="d" * 63,
            pool="p" * 63,
            worker="w" * 63,
            pod="n" * 127,
            error="e" * 200,
        )
        for number in range(16)
    )
    large = v1.NodeTelemetry(time=datetime.now(UTC), node=NODE, gpus=gpus)
    assert len(codec.encode(large)) < TELEMETRY_BYTES
    await publish(agent, agent.subjects.telemetry_node(NODE), large, "large")
    letter = v1.DeadLetter(
        time=large.time,
        stream="WATTSCALE_DECISIONS",
        consumer="power-node-7_example",
        subject="s",
        sequence=1,
        reason="r" * 500,
        body_base64="A" * (65536 * 4 // 3),
    )
    await publish(agent, agent.subjects.deadletter("WATTSCALE_DECISIONS", "power-node-7_example"), letter, "letter")
