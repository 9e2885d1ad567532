"""Fenced atomic batches: all or nothing, once, and never from a planner that no longer leads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bus_schemas import codec
from bus_schemas.errors import FenceRefusedError, LeadershipLostError, NotStoredError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.publisher import Publisher, publish
from bus_schemas.jetstream.reader import last, last_per_subject, next_messages
from tests.contract.bus import bench, leading, outgoing, power, scaling


async def all_decisions(bus: Bus) -> list[tuple[str, int]]:
    found, after = [], 0
    while page := await next_messages(bus, bus.subjects.all_decisions(), after):
        found += [(one.subject, one.message.decision_id) for one in page]  # type: ignore[attr-defined]
        after = page[-1].sequence
    return found


async def test_a_tick_lands_together_and_in_order() -> None:
    async with bench() as (_, bus), leading(bus) as leadership:
        items = [outgoing(bus, power(f"n{i}", 0)) for i in range(10)] + [outgoing(bus, scaling("d", 0))]
        await Publisher(bus, leadership).publish_batch(items)
        assert await all_decisions(bus) == [(item.subject, 0) for item in items]


async def test_more_than_a_batch_holds_is_split_in_order() -> None:
    async with bench() as (_, bus), leading(bus) as leadership:
        items = [outgoing(bus, power(f"n{i}", 0)) for i in range(2500)]
        places = await Publisher(bus, leadership).publish_batch(items)
        found = await last_per_subject(bus, bus.subjects.all_decisions())
        assert [one.subject for one in found] == [item.subject for item in items]
        assert [one.sequence for one in found] == list(places)


async def test_the_same_batch_again_is_stored_once() -> None:
    async with bench() as (_, bus), leading(bus) as leadership:
        items = [outgoing(bus, power(f"n{i}", 0)) for i in range(3)]
        publisher = Publisher(bus, leadership)
        assert len(await publisher.publish_batch(items)) == 3
        # Where they are is not known: the answer that says it was the first one's.
        assert not await publisher.publish_batch(items)
        assert len(await all_decisions(bus)) == 3


async def test_an_id_that_was_another_messages_is_refused_and_nothing_lands() -> None:
    async with bench() as (_, bus), leading(bus) as leadership:
        publisher = Publisher(bus, leadership)
        used = outgoing(bus, power("a", 0))
        await publisher.publish_batch([used])
        with pytest.raises(NotStoredError, match="used before"):
            await publisher.publish_batch([used, outgoing(bus, power("b", 0))])
        assert await all_decisions(bus) == [(used.subject, 0)]


async def test_a_stolen_lease_refuses_the_batch_in_the_server_and_ends_the_term() -> None:
    async with bench() as (_, bus):
        leadership = Leadership(bus, "old", ttl_s=30)
        await leadership.acquire()
        subject = bus.subjects.lease()
        found = await last(bus, subject)
        assert found is not None
        # Another holder writes the lease behind our back, as after a pause longer than the lease.
        await bus.nc.request(
            subject, codec.encode(found.message), headers={"Nats-Expected-Last-Subject-Sequence": str(found.sequence)}
        )
        publisher = Publisher(bus, leadership)
        with pytest.raises(FenceRefusedError):
            await publisher.publish_batch([outgoing(bus, power("a", 0))])
        assert not leadership.held
        with pytest.raises(LeadershipLostError):
            await publisher.publish_batch([outgoing(bus, power("a", 1))])
        assert await all_decisions(bus) == []


async def test_renewals_and_batches_at_once_never_refuse_each_other() -> None:
    async with bench() as (_, bus), leading(bus, ttl_s=30) as leadership:
        publisher = Publisher(bus, leadership)

        async def renewing() -> None:
            for _ in range(100):
                await leadership.renew()

        async def publishing(node: str) -> None:
            for number in range(30):
                await publisher.publish_batch(
                    [outgoing(bus, power(node, number)), outgoing(bus, power(node + "x", number))]
                )

        await asyncio.gather(renewing(), *(publishing(f"n{i}") for i in range(5)))
        assert len(await all_decisions(bus)) == 300


async def test_a_lost_answer_is_found_out_by_reading() -> None:
    async with bench() as (_, bus), leading(bus, ttl_s=30) as leadership:
        real = bus.nc.request
        lost: list[object] = []

        async def losing(subject: str, *args: object, **kwargs: Any) -> object:
            answer = await real(subject, *args, **kwargs)  # type: ignore[arg-type]
            if ".decision." in subject and not subject.startswith("$") and not lost:
                lost.append(subject)
                raise TimeoutError
            return answer

        bus.nc.request = losing  # type: ignore[method-assign,assignment]
        items = [outgoing(bus, power(f"n{i}", 0)) for i in range(4)]
        await Publisher(bus, leadership).publish_batch(items)
        assert lost
        assert len(await all_decisions(bus)) == 4
        assert leadership.held


async def test_a_plain_publish_is_stored_once_with_cloud_events_headers() -> None:
    async with bench() as (_, bus):
        message = power("n.example", 3)
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        subject = bus.subjects.decision_power("n.example")
        first = await publish(bus, subject, message, "one", trace)
        assert await publish(bus, subject, message, "one", trace) == first
        raw = await bus.nc.request(f"$JS.API.DIRECT.GET.WATTSCALE_DECISIONS.{subject}")
        headers = raw.headers or {}
        assert headers["ce-id"] == headers["Nats-Msg-Id"] == "one"
        assert (headers["ce-specversion"], headers["ce-type"], headers["ce-source"]) == ("1.0", message.type, "test")
        assert headers["traceparent"] == trace
        assert headers["Content-Type"] == "application/json"
        assert raw.data.startswith(b'{"type":"wattscale.v1.power_decision"')
        assert json.loads(raw.data)["time"] == headers["ce-time"]


async def test_a_subject_that_no_stream_holds_is_not_stored() -> None:
    async with bench() as (_, bus):
        bus.settings.__dict__["request_timeout_s"] = 0.2
        with pytest.raises(NotStoredError, match="no service answers"):
            await publish(bus, "wattscale.v1.nothing.x", power("n", 0), "x")


async def test_a_message_over_the_limit_is_refused_before_it_is_sent() -> None:
    async with bench() as (_, bus):
        huge = scaling("d", 0).model_copy(update={"reasons": ({"code": "x", "text": "y" * (1 << 20)},)})
        with pytest.warns(UserWarning, match="serialized value"), pytest.raises(NotStoredError, match="limit"):
            await publish(bus, bus.subjects.decision_scaling("d"), huge, "x")
