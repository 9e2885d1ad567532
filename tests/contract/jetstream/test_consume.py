"""The one loop: result before acknowledgement, nothing twice, nothing lost, nothing that crashes it."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumer import (
    BACKOFF_FIRST_S,
    CannotCarryOutError,
    Consumer,
    Delivery,
    Durable,
    ensure,
    ensure_all,
    keep,
)
from bus_schemas.jetstream.consumers import maintain
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last, last_per_subject, next_messages
from bus_schemas.v1 import Message
from tests.contract.bus import applied, bench, connected, outgoing, power, scaling, until

NODE = "node-7.example"


class ConsumingAgent:
    """Carries decisions out by noting them."""

    def __init__(self, bus: Bus, **options: Any) -> None:
        self.bus = bus
        self.carried: list[int] = []
        self.durable = Durable.power(bus, NODE)
        self.gate = asyncio.Event()
        self.gate.set()
        self.raising: list[Exception] = []
        self.consumer = Consumer(
            bus,
            self.durable.stream,
            self.durable.name,
            self.durable.subject,
            self.handle,
            result_subject=bus.subjects.ack_power(NODE),
            **options,
        )

    async def handle(self, delivery: Delivery) -> Message | None:
        await self.gate.wait()
        if self.raising:
            raise self.raising.pop(0)
        assert isinstance(delivery.message, v1.PowerDecision)
        self.carried.append(delivery.message.decision_id)
        return applied(delivery.message)

    async def applied_id(self, reader: Bus | None = None) -> int:
        found = await last(reader or self.bus, self.bus.subjects.ack_power(NODE))
        return found.message.applied_decision_id if found and isinstance(found.message, v1.PowerAck) else -1

    async def exists(self) -> bool:
        try:
            await self.bus.js.consumer_info(self.durable.stream, self.durable.name)
        except NotFoundError:
            return False
        return True

    async def pending(self) -> int:
        info = await self.bus.js.consumer_info(self.durable.stream, self.durable.name)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def drained(self) -> None:
        async def nothing_left() -> bool:
            return not await self.pending()

        await until(nothing_left, "all to be acknowledged")


@asynccontextmanager
async def working(bus: Bus, **options: Any) -> AsyncIterator[ConsumingAgent]:
    agent = ConsumingAgent(bus, **options)
    running = asyncio.create_task(agent.consumer.run())
    if options.get("create"):
        # Only from then on is every decision delivered: a new consumer begins with the newest.
        await until(agent.exists, "the consumer")
    try:
        yield agent
    finally:
        agent.gate.set()
        agent.consumer.stop()
        await asyncio.wait_for(running, 30)


async def decide(bus: Bus, number: int, **options: Any) -> None:
    item = outgoing(bus, power(NODE, number, **options))
    await publish(bus, item.subject, item.message, item.msg_id)


async def letters(bus: Bus) -> list[v1.DeadLetter]:
    found = await next_messages(bus, bus.subjects.all_deadletters(), 0)
    return [one.message for one in found if isinstance(one.message, v1.DeadLetter)]


async def test_decisions_are_carried_out_in_order_and_answered() -> None:
    async with bench() as (_, bus):
        await ensure(bus, Durable.power(bus, NODE))
        async with working(bus) as agent:
            for number in range(5):
                await decide(bus, number)
            await until(lambda: agent.carried == [0, 1, 2, 3, 4], "all five")
            await agent.drained()
            assert await agent.applied_id() == 4


async def test_a_consumer_that_does_not_exist_yet_is_waited_for() -> None:
    async with bench() as (_, bus), working(bus) as agent:
        await decide(bus, 0)
        await asyncio.sleep(0.3)
        assert agent.carried == []
        await ensure(bus, Durable.power(bus, NODE))
        await until(lambda: agent.carried == [0], "the decision")


async def test_a_consumer_deleted_under_way_comes_back_whole_by_the_planners_side() -> None:
    async with bench() as (server, bus), connected(server.url, "agent") as mine:
        wanted = Durable.power(bus, NODE)
        keeping = asyncio.create_task(keep(bus, lambda: [wanted], every_s=0.2))
        async with working(mine) as agent:
            await decide(bus, 0)
            await until(lambda: agent.carried == [0], "the first")
            await bus.js.delete_consumer(wanted.stream, wanted.name)
            await decide(bus, 1)
            await until(lambda: agent.carried == [0, 1], "the second")
            info = await bus.js.consumer_info(wanted.stream, wanted.name)
            assert info.config is not None
            assert (info.config.max_ack_pending, info.config.mem_storage) == (1, True)
            assert (info.config.deliver_policy, info.config.filter_subject) == ("last_per_subject", wanted.subject)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_where_it_may_the_loop_creates_its_consumer_itself() -> None:
    async with bench() as (_, bus), working(bus, create=True) as agent:
        await decide(bus, 0)
        await until(lambda: agent.carried == [0], "the decision")


async def test_a_decision_whose_result_is_stored_is_acknowledged_again_and_not_carried_out() -> None:
    async with bench() as (_, bus):
        # As after a crash between storing the result and the acknowledgement, in a new process.
        done = power(NODE, 3)
        await publish(bus, bus.subjects.ack_power(NODE), applied(done), "result-of-3")
        await decide(bus, 3)
        await ensure(bus, Durable.power(bus, NODE))
        async with working(bus) as agent:
            await agent.drained()
            await decide(bus, 4)
            await until(lambda: agent.carried == [4], "the next only")


async def test_a_new_incarnation_starts_its_ids_again() -> None:
    async with bench() as (_, bus), working(bus, create=True) as agent:
        await decide(bus, 5)
        await until(lambda: agent.carried == [5], "the fifth")
        await decide(bus, 0, incarnation="two")
        await until(lambda: agent.carried == [5, 0], "the first of the new ones")


async def test_a_result_that_cannot_be_stored_is_sent_again_without_working_again() -> None:
    async with (
        bench() as (server, bus),
        connected(server.url, "agent", request_timeout_s=0.5) as mine,
        working(mine, create=True) as agent,
    ):
        real, failing = mine.nc.request, [0]

        async def losing(subject: str, *args: object, **kwargs: Any) -> object:
            if ".ack." in subject and not subject.startswith("$") and failing[0] < 4:
                failing[0] += 1
                raise TimeoutError
            return await real(subject, *args, **kwargs)  # type: ignore[arg-type]

        mine.nc.request = losing  # type: ignore[method-assign,assignment]
        await decide(bus, 0)
        async with asyncio.timeout(60):
            while await agent.applied_id(bus) != 0:
                await asyncio.sleep(0.05)
        assert agent.carried == [0]
        assert failing == [4]


async def test_a_handler_that_raises_is_tried_again() -> None:
    async with bench() as (_, bus), working(bus, create=True) as agent:
        agent.raising = [RuntimeError("flaky"), OSError("flaky too")]
        await decide(bus, 0)
        await until(lambda: agent.carried == [0], "the third try")
        assert await letters(bus) == []


async def test_what_can_never_be_carried_out_becomes_a_dead_letter_and_the_next_goes_on() -> None:
    async with bench() as (_, bus), working(bus, create=True) as agent:
        agent.raising = [CannotCarryOutError("no such GPU")]
        await decide(bus, 0)
        await decide(bus, 1)
        await until(lambda: agent.carried == [1], "the second")
        (letter,) = await letters(bus)
        assert (letter.reason, letter.stream, letter.consumer) == (
            "no such GPU",
            agent.durable.stream,
            agent.durable.name,
        )
        assert json.loads(base64.b64decode(letter.body_base64))["decision_id"] == 0
        assert letter.headers["ce-type"] == "wattscale.v1.power_decision"


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"", {}, "not a JSON object"),
        (b"{", {}, "not a JSON object"),
        (b"[]", {}, "not a JSON object"),
        (b'{"type":"wattscale.v2.power_decision"}', {}, "version this reader does not know"),
        (b'{"type":"wattscale.v1.nonsense"}', {}, "not one of v1"),
        (b'{"type":"wattscale.v1.power_decision","node":7}', {}, "power_decision"),
        (b"scaling", {}, "where a wattscale.v1.power_decision belongs"),
        (b"other", {}, "meant for node other, not node-7.example"),
        (b"good", {"ce-type": "wattscale.v1.scaling_decision"}, "header ce-type"),
        (b"good", {"Content-Type": "text/plain"}, "Content-Type"),
        (b"good", {"ce-id": "a", "Nats-Msg-Id": "b"}, "ce-id"),
    ],
)
async def test_poison_is_buried_with_the_reason(body: bytes, headers: dict[str, str], reason: str) -> None:
    async with bench() as (_, bus), working(bus) as agent:
        await ensure(bus, agent.durable)
        bodies = {b"good": power(NODE, 0), b"other": power("other", 0), b"scaling": scaling("d", 0)}
        if body in bodies:
            body = bodies[body].model_dump_json().encode()
        await bus.nc.request(bus.subjects.decision_power(NODE), body, headers=headers or None)
        await decide(bus, 1)
        await until(lambda: agent.carried == [1], "the good one behind it")
        (letter,) = await letters(bus)
        assert reason in letter.reason
        assert letter.body_size == len(body)


async def test_long_work_is_not_delivered_a_second_time() -> None:
    async with bench() as (_, bus), working(bus, create=True, ack_wait_s=3.0) as agent:
        agent.gate.clear()
        await decide(bus, 0)
        await asyncio.sleep(4.5)
        agent.gate.set()
        await until(lambda: agent.carried == [0], "the work")
        await agent.drained()
        info = await bus.js.consumer_info(agent.durable.stream, agent.durable.name)
        assert info.num_redelivered == 0
        assert agent.carried == [0]


async def test_of_a_backlog_of_states_only_the_newest_is_carried_out() -> None:
    async with bench() as (_, bus), working(bus, create=True, newest_only=True) as agent:
        agent.gate.clear()
        await decide(bus, 0)
        await until(lambda: _in_flight(agent), "the first to be in hand")
        for number in range(1, 6):
            await decide(bus, number)
        agent.gate.set()
        await until(lambda: agent.carried[-1:] == [5], "the newest")
        assert agent.carried == [0, 5]


async def _in_flight(agent: ConsumingAgent) -> bool:
    try:
        info = await agent.bus.js.consumer_info(agent.durable.stream, agent.durable.name)
    except Exception:  # noqa: BLE001  # not created yet
        return False
    return info.num_ack_pending == 1


async def test_a_stop_drains_the_message_in_hand() -> None:
    async with bench() as (_, bus):
        agent = ConsumingAgent(bus, create=True)
        running = asyncio.create_task(agent.consumer.run())
        agent.gate.clear()
        await decide(bus, 0)
        await until(lambda: _in_flight(agent), "the decision to be in hand")
        agent.consumer.stop()
        await asyncio.sleep(0.1)
        assert not running.done()
        agent.gate.set()
        await asyncio.wait_for(running, 30)
        assert agent.carried == [0]
        assert await agent.applied_id() == 0
        assert await agent.pending() == 0


async def test_the_loop_survives_a_killed_server() -> None:
    async with bench() as (server, bus), connected(server.url, "agent") as mine:
        keeping = asyncio.create_task(keep(bus, lambda: [Durable.power(bus, NODE)], every_s=1.0))
        async with working(mine) as agent:
            await decide(bus, 0)
            await until(lambda: agent.carried == [0], "the first")
            for round_ in range(1, 4):
                await server.kill()
                await server.start()
                await until(lambda: bus.connected, "the planner")
                await decide(bus, round_)
                await until(lambda want=round_: agent.carried[-1] == want, "the next", 20)  # type: ignore[misc]
            assert agent.carried == [0, 1, 2, 3]
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_a_connection_that_the_client_gives_up_for_good_is_opened_anew_at_once() -> None:
    async with bench() as (server, bus), connected(server.url, "agent") as mine:
        await ensure(bus, Durable.power(bus, NODE))
        async with working(mine) as agent:
            await decide(bus, 0)
            await until(lambda: agent.carried == [0], "the first")
            await agent.drained()
            # As it does itself where the server says that a credential has expired.
            await mine.nc.close()
            await decide(bus, 1)
            # Silence on the old one would be strange after two and a half beats of ten seconds only.
            await until(lambda: agent.carried == [0, 1], "the second", 20)


async def test_each_loss_after_work_that_was_done_costs_the_first_short_pause_again() -> None:
    async with bench() as (server, bus), connected(server.url, "agent") as mine:
        await ensure(bus, Durable.power(bus, NODE))
        async with working(mine) as agent:
            pauses: list[float] = []
            pause = agent.consumer._pause

            async def noted(seconds: float) -> None:
                pauses.append(seconds)
                await pause(seconds)

            agent.consumer._pause = noted  # type: ignore[method-assign]
            for number in range(5):
                await decide(bus, number)
                await until(functools.partial(agent.carried.__contains__, number), "the decision")
                mine.wake()
                await until(lambda want=number: len(pauses) == want + 1, "the pause")  # type: ignore[misc]
            assert all(BACKOFF_FIRST_S / 2 <= pause_s <= BACKOFF_FIRST_S for pause_s in pauses)


async def test_many_consumers_are_made_at_once_and_only_where_missing() -> None:
    async with bench() as (_, bus):
        wanted = [Durable.power(bus, f"n{i}") for i in range(1500)]
        assert await ensure_all(bus, wanted) == 1500
        assert await ensure_all(bus, [*wanted, Durable.scaling(bus, "d")]) == 1
        for durable in wanted:
            item = outgoing(bus, power(durable.name.removeprefix("power-"), 0))
            await bus.nc.publish(item.subject, item.message.model_dump_json().encode())

        async def stored() -> bool:
            return len(await last_per_subject(bus, bus.subjects.all_decisions())) == 1500

        await until(stored, "one decision for each")


async def test_a_node_that_reports_gets_its_consumer_and_streams_come_back() -> None:
    async with bench() as (server, bus), connected(server.url, "agent") as mine:
        tending = asyncio.create_task(maintain(bus, every_s=0.2))
        async with working(mine) as agent:
            report = v1.NodeTelemetry(time=power("x", 0).time, node=NODE, gpus=())
            await publish(mine, mine.subjects.telemetry_node(NODE), report, "one")
            await until(agent.exists, "the consumer")
            await decide(bus, 0)
            await until(lambda: agent.carried == [0], "the first")
            await server.kill()
            await server.start()
            await until(lambda: bus.connected, "the planner")
            await decide(bus, 1)
            await until(lambda: agent.carried == [0, 1], "the second")
            await publish(mine, mine.subjects.telemetry_node(NODE), report, "two")
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)


async def test_consumers_come_back_with_the_server_and_not_at_the_next_round() -> None:
    async with bench() as (server, bus), connected(server.url, "agent") as mine:
        await decide(bus, 0)
        tending = asyncio.create_task(maintain(bus, every_s=600.0))
        agent = ConsumingAgent(mine)
        await until(agent.exists, "the consumer")
        await server.kill()
        await server.start()
        await until(lambda: mine.connected and bus.connected, "the connections")
        await until(agent.exists, "the consumer again")
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)
