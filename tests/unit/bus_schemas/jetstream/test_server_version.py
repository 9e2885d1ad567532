"""What a server says of its version: three numbers, or anything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus_schemas.jetstream.connect import Bus, connect, server_version
from bus_schemas.jetstream.settings import BusSettings
from deploy.cli.verify.gather_bus import shown_version


@asynccontextmanager
async def connected(version: str) -> AsyncIterator[Bus]:
    """A connection to a server that says that it is of ``version``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            f'INFO {{"server_id":"s","version":"{version}","max_payload":1048576,"headers":true}}\r\n'.encode()
        )
        while line := await reader.readline():
            if b"PING" in line:
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    bus = await connect(BusSettings(servers=(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}",), name="test"))
    try:
        yield bus
    finally:
        await bus.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("said", "read", "shown"),
    [
        ("2.15.0", (2, 15, 0), "2.15.0"),
        ("2.14.0-RC.3", (2, 14, 0), "2.14.0"),
        ("main-2f3a", None, "of unknown version"),
        ("0.0.0", None, "of unknown version"),
    ],
)
async def test_a_version_that_is_not_of_numbers_is_unknown(
    said: str, read: tuple[int, int, int] | None, shown: str
) -> None:
    async with connected(said) as bus:
        assert server_version(bus.nc) == read
        assert shown_version(bus) == shown
