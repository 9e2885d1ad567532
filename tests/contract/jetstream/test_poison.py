"""Whatever bodies and headers come, a consumer sets unreadable ones aside, carries out the rest, and goes on."""

from __future__ import annotations

import asyncio
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus_schemas import codec, v1
from bus_schemas.errors import UndecodableError
from bus_schemas.jetstream.consumer import Consumer, Delivery, Durable, ensure
from bus_schemas.jetstream.reader import last, next_messages
from tests.contract.bus import applied, bench, power, until

NODE = "node-7"
GOOD = power(NODE, 0).model_dump_json().encode()
JSON = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.integers(0, len(GOOD) - 1).map(lambda cut: GOOD[:cut]),
    st.sampled_from(
        [
            GOOD.replace(b"v1", b"v2", 1),
            GOOD.replace(b"power_decision", b"scaling_decision", 1),
            GOOD.replace(NODE.encode(), b"elsewhere", 1),
            b'{"type":"wattscale.v1.power_decision","pad":"' + b"x" * 900_000 + b'"}',
        ]
    ),
)


def poisonous(body: bytes) -> bool:
    try:
        message = codec.decode(body)
    except UndecodableError:
        return True
    return not (isinstance(message, v1.PowerDecision) and message.node == NODE)


async def survive(bodies: list[bytes]) -> None:
    carried: list[int] = []

    async def carry_out(delivery: Delivery) -> v1.Message:
        assert isinstance(delivery.message, v1.PowerDecision)
        carried.append(delivery.message.decision_id)
        return applied(delivery.message)

    async with bench() as (_, bus):
        durable = Durable.power(bus, NODE)
        await ensure(bus, durable)
        result = bus.subjects.ack_power(NODE)
        loop = Consumer(bus, durable.stream, durable.name, durable.subject, carry_out, result_subject=result)
        running = asyncio.create_task(loop.run())
        for body in bodies:
            await bus.nc.request(durable.subject, body, timeout=30)
        await bus.nc.request(durable.subject, power(NODE, 1_000_000).model_dump_json().encode(), timeout=30)
        await until(lambda: carried[-1:] == [1_000_000], "the good one behind all others")
        letters = await next_messages(bus, bus.subjects.all_deadletters(), 0)
        assert len(letters) == sum(map(poisonous, bodies))
        assert all(isinstance(one.message, v1.DeadLetter) and one.message.reason for one in letters)
        loop.stop()
        await asyncio.wait_for(running, 30)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(BODIES, min_size=10, max_size=20))
def test_no_body_ends_the_loop(bodies: list[bytes]) -> None:
    asyncio.run(survive(bodies))


async def test_a_malformed_trace_context_does_not_stop_the_loop() -> None:
    async with bench() as (_, bus):
        durable = Durable.power(bus, NODE)
        await ensure(bus, durable)
        result = bus.subjects.ack_power(NODE)

        async def carry_out(delivery: Delivery) -> v1.Message:
            assert isinstance(delivery.message, v1.PowerDecision)
            assert delivery.traceparent is None
            return applied(delivery.message)

        loop = Consumer(bus, durable.stream, durable.name, durable.subject, carry_out, result_subject=result)
        running = asyncio.create_task(loop.run())
        await bus.nc.request(durable.subject, GOOD, headers={"traceparent": "of another kind"}, timeout=30)

        async def answered() -> bool:
            return await last(bus, result) is not None

        await until(answered, "the result")
        loop.stop()
        await asyncio.wait_for(running, 30)
