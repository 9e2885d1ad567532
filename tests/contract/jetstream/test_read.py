"""Readers need no consumer, see each message once, and survive what happens to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bus_schemas import v1
from bus_schemas.errors import NoServiceError
from bus_schemas.jetstream import stream_admin, watch
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import StoredMessage, last, last_per_subject, next_messages, stored
from bus_schemas.jetstream.watch import follow
from deploy.nats.embedded import EmbeddedServer
from tests.contract.bus import bench, connected, outgoing, power, until


@asynccontextmanager
async def following(bus: Bus, wildcard: str, after: int | None = None) -> AsyncIterator[list[StoredMessage]]:
    found: list[StoredMessage] = []

    async def run() -> None:
        async for one in follow(bus, wildcard, after):
            found.append(one)  # noqa: PERF401  # one by one, as they come

    task = asyncio.create_task(run())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def put(bus: Bus, node: str, number: int) -> None:
    item = outgoing(bus, power(node, number))
    await publish(bus, item.subject, item.message, item.msg_id)


def ids(found: list[StoredMessage]) -> list[tuple[str, int]]:
    return [(one.message.node, one.message.decision_id) for one in found if isinstance(one.message, v1.PowerDecision)]


async def test_the_last_of_one_and_of_many() -> None:
    async with bench() as (_, bus):
        wildcard = bus.subjects.all_of("decision", "power")
        assert await last(bus, bus.subjects.decision_power("a")) is None
        assert await last_per_subject(bus, wildcard) == []
        for node, number in (("a", 0), ("b", 0), ("a", 1)):
            await put(bus, node, number)
        found = await last(bus, bus.subjects.decision_power("a"))
        assert found is not None
        assert (found.sequence, found.msg_id) == (3, "a-one-1-1")
        assert ids(await last_per_subject(bus, wildcard)) == [("b", 0), ("a", 1)]
        assert [one.sequence for one in await next_messages(bus, wildcard, 1)] == [2, 3]


async def test_one_that_asks_once_waits_for_a_stream_that_nothing_serves_yet() -> None:
    async with EmbeddedServer() as server, connected(server.url, no_service_wait_s=30.0) as bus:
        first = asyncio.create_task(last(bus, bus.subjects.decision_power("a")))
        many = asyncio.create_task(last_per_subject(bus, bus.subjects.all_of("decision", "power")))
        async with connected(server.url) as other:
            for question in (
                last(other, other.subjects.decision_power("a")),
                last_per_subject(other, other.subjects.all_of("decision")),
            ):
                with pytest.raises(NoServiceError, match="does the stream exist"):
                    await question
            await stream_admin.apply(other)
        assert (await first, await many) == (None, [])


async def test_what_cannot_be_read_is_left_out_and_readers_go_on() -> None:
    async with bench() as (_, bus):
        wildcard = bus.subjects.all_of("decision", "power")
        async with following(bus, wildcard, 0) as found:
            await put(bus, "a", 0)
            await bus.nc.request(bus.subjects.decision_power("b"), b"\xff{")
            await put(bus, "a", 1)
            await until(lambda: len(found) == 2, "both good ones")
        assert await last(bus, bus.subjects.decision_power("b")) is None
        assert ids(await last_per_subject(bus, wildcard)) == [("a", 1)]
        assert [one.sequence for one in await next_messages(bus, wildcard, 1)] == [3]


async def test_following_begins_where_it_is_asked_to() -> None:
    async with bench() as (_, bus):
        wildcard = bus.subjects.all_of("decision", "power")
        for number in range(3):
            await put(bus, "a", number)
        async with following(bus, wildcard, 1) as some, following(bus, wildcard) as new:
            await until(lambda: ids(some) == [("a", 1), ("a", 2)], "the rest")
            await asyncio.sleep(0.2)
            await put(bus, "a", 3)
            await until(lambda: ids(new) == [("a", 3)], "the new one only")
            await until(lambda: len(some) == 3, "it here too")


async def test_following_misses_nothing_and_repeats_nothing_over_kills() -> None:
    async with bench() as (server, bus), connected(server.url, "reader") as mine:
        wildcard = bus.subjects.all_of("decision", "power")
        async with following(mine, wildcard, 0) as found:
            for number in range(40):
                if number % 10 == 5:
                    await server.kill()
                    await server.start()
                    await until(lambda: bus.connected, "the writer")
                await put(bus, f"n{number % 3}", number)
            await until(lambda: len(found) >= 40, "all")
            assert sorted(one.sequence for one in found) == list(range(1, 41))


async def test_copies_that_were_lost_are_read_from_the_stream() -> None:
    async with bench() as (_, bus):
        wildcard = bus.subjects.all_of("decision", "power")
        real = bus.nc.subscribe
        dropped: list[object] = []

        async def dropping(subject: str, **options: Any) -> object:
            given = options.get("cb")
            if not subject.startswith("wattscale.stored") or given is None:
                return await real(subject, **options)

            async def some(message: object) -> None:
                if len(dropped) % 3 == 1:
                    await given(message)
                dropped.append(message)

            return await real(subject, cb=some)

        bus.nc.subscribe = dropping  # type: ignore[method-assign,assignment]
        async with following(bus, wildcard, 0) as found:
            for number in range(30):
                await put(bus, "a", number)
            await until(lambda: len(found) == 30, "all")
            assert ids(found) == [("a", number) for number in range(30)]


async def test_a_stream_that_lost_its_memory_is_followed_again_from_its_beginning() -> None:
    async with bench() as (server, bus), connected(server.url, "reader") as mine:
        subject = bus.subjects.telemetry_node("a")
        async with following(mine, bus.subjects.all_of("telemetry", "node"), 0) as found:
            for number in range(5):
                await publish(bus, subject, reading("a", number), f"before-{number}")
            await until(lambda: len(found) == 5, "those before")
            await server.kill()
            await server.start()
            await until(lambda: bus.connected and mine.connected, "both connections")
            # A single server forgets a stream in memory when it restarts.
            await stream_admin.apply(bus)
            await publish(bus, subject, reading("a", 9), "after")
            await until(lambda: len(found) == 6, "the one after")
            assert found[-1].sequence == 1


@pytest.mark.parametrize("kind", [("telemetry", "node"), ("decision", "power")], ids="-".join)
async def test_nothing_piles_up_in_front_of_a_reader_that_falls_behind(
    kind: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MOST_WAITING", 16)
    async with bench() as (_, bus):
        follower = watch._Follower(bus, bus.subjects.all_of(*kind), None)
        await follower.open(0)
        news, found, total, longest = read_of(follower), list[tuple[str, int]](), 200, 0
        try:
            for number in range(total):
                name = f"n{number % 5}"
                if kind == ("telemetry", "node"):
                    await publish(bus, bus.subjects.telemetry_node(name), reading(name, number), f"id-{number}")
                else:
                    await put(bus, name, number)
                if number == 20:
                    found.append(await anext(news))  # A reader that was at work when it fell behind.
                longest = max(longest, len(follower._waiting))
            assert longest <= 17
            async with asyncio.timeout(60):
                while not {(f"n{number % 5}", number) for number in range(total - 5, total)} <= set(found):
                    found.append(await anext(news))
        finally:
            await news.aclose()
            await follower.close()
        for name in {name for name, _ in found}:
            mine = [number for who, number in found if who == name]
            assert mine == sorted(set(mine)), "each once, and those of one sender in order"
        if kind == ("telemetry", "node"):
            assert len(found) < total / 2
        else:
            assert len(found) == total


async def read_of(follower: watch._Follower) -> AsyncGenerator[tuple[str, int]]:
    while True:
        async for raw in follower.news():
            one = stored(raw)
            assert one is not None
            message = one.message
            number = (
                message.applied_decision_id if isinstance(message, v1.NodeTelemetry) else message.decision_id  # type: ignore[attr-defined]
            )
            yield message.node, number  # type: ignore[attr-defined]


def reading(node: str, number: int) -> v1.NodeTelemetry:
    return v1.NodeTelemetry(time=power("x", 0).time, node=node, applied_decision_id=number, gpus=())


async def test_the_bucket_shows_current_decisions_and_takes_no_writes() -> None:
    async with bench() as (_, bus):
        await put(bus, "node-7.example", 0)
        bucket = await bus.js.key_value("wattscale")

        async def value() -> bytes | None:
            entry = await bucket.get("decision.power.node-7_example")
            return entry.value

        async def there() -> bool:
            try:
                return b'"decision_id":0' in (await value() or b"")
            except Exception:  # noqa: BLE001  # not sourced yet
                return False

        await until(there, "the bucket")
        try:
            await bucket.put("decision.power.node-7_example", b"forged")
        except Exception as error:  # noqa: BLE001  # whatever the client makes of a refusal
            assert "no response" in str(error) or "stream" in str(error)  # noqa: PT017
        else:
            raise AssertionError("the bucket took a write")
