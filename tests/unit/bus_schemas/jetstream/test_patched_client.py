"""What the client library would wait for without an end, ends when it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.settings import BusSettings

INFO = b'INFO {"server_id":"s","version":"2.15.0","max_payload":1048576,"headers":true}\r\n'
STUCK_S = 0.5


@asynccontextmanager
async def freezing_server() -> AsyncIterator[str]:
    """Greets its first client and reads nothing after that; later ones are served."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(INFO)
        while line := await reader.readline():
            if b"PING" in line:
                writer.write(b"PONG\r\n")
                if writer is writers[0]:
                    writer.transport.pause_reading()  # type: ignore[attr-defined]
                    return

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()


@asynccontextmanager
async def stuck(bus: Bus) -> AsyncIterator[asyncio.Task[None]]:
    """A task that publishes until the server's silence holds it up."""
    sent = 0

    async def publish() -> None:
        nonlocal sent
        while True:
            await bus.nc.publish("much", bytes(500_000))
            sent += 1
            await asyncio.sleep(0)

    publishing = asyncio.create_task(publish())
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(STUCK_S)
    try:
        yield publishing
    finally:
        publishing.cancel()
        await asyncio.wait([publishing], timeout=3)


async def test_a_publisher_that_waits_for_a_frozen_server_ends_when_it_is_cancelled() -> None:
    async with freezing_server() as url:
        bus = await connect(BusSettings(servers=(url,)))
        async with stuck(bus) as publishing:
            pass
        assert publishing.cancelled()
        async with asyncio.timeout(60):
            await bus.close()


async def test_a_frozen_server_is_left_without_waiting_until_it_reads() -> None:
    async with freezing_server() as url:
        bus = await connect(BusSettings(servers=(url,)))
        async with stuck(bus) as publishing:
            publishing.cancel()
            await bus.nc.force_reconnect()
            async with asyncio.timeout(60):
                await bus.ready()
        await bus.close()


async def test_closing_beside_a_reconnect_that_is_given_up_is_no_cancellation_of_the_one_who_closes() -> None:
    async with freezing_server() as url:
        bus = await connect(BusSettings(servers=(url,)))
        # As a reconnect waits for the old connection's end: both wait for one future.
        waiting = asyncio.create_task(bus.nc._transport.wait_closed())  # type: ignore[union-attr]
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await bus.close()
        assert bus.nc.is_closed


async def test_a_client_that_closed_for_good_is_replaced_without_a_waiter() -> None:
    async with freezing_server() as url:
        bus = await connect(BusSettings(servers=(url,)))
        first = bus.nc
        await first.close()
        async with asyncio.timeout(60):
            while not bus.connected:
                await asyncio.sleep(0.01)
        assert bus.nc is not first
        await bus.close()
        assert bus.nc.is_closed
