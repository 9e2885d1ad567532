"""The listener of counts: how many connections it holds open, and what takes the place of one that ends."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.connectors.autoscaler import metric_listener
from agent.connectors.autoscaler.metric_listener import MAX_CONNECTIONS, MetricListener
from tests.contract.roles.certificates import Authority

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None) -> AsyncIterator[MetricListener]:
    """A listener that answers every GET alike."""

    async def answer(_: object) -> dict[str, int]:
        return {"replicas": 3}

    listener = MetricListener(answer, "a test", "127.0.0.1", 0)
    if tls is not None:
        listener.secure(tls)
    running = asyncio.create_task(listener.run())
    try:
        while not listener.address:
            assert not running.done()
            await asyncio.sleep(0.01)
        yield listener
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def served(authority: Authority, name: str = "server") -> ssl.SSLContext:
    pair = authority.issue(name)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pair.cert, pair.key)
    return made


@asynccontextmanager
async def connection(listener: MetricListener, tls: ssl.SSLContext | None = None) -> AsyncIterator[Connection]:
    """One connection, closed afterwards."""
    host, port = listener.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def read(reader: asyncio.StreamReader) -> bytes:
    """All until the end of the connection, in whatever way it ends."""
    try:
        return await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        return b""


async def asked(listener: MetricListener, tls: ssl.SSLContext | None) -> int | None:
    """The count; None where the connection is closed without an answer."""
    try:
        async with connection(listener, tls) as (reader, writer):
            writer.write(REQUEST)
            found = await read(reader)
    except OSError:
        return None
    return int(json.loads(found.partition(b"\r\n\r\n")[2])["replicas"]) if found else None


async def until_asked(listener: MetricListener, tls: ssl.SSLContext | None, count: int | None) -> None:
    async with asyncio.timeout(60):
        while await asked(listener, tls) != count:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("secure", [False, True])
async def test_connections_that_send_nothing_count_from_the_first_moment(
    authority: Authority, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("HANDSHAKE_S", "REQUEST_S"):
        monkeypatch.setattr(metric_listener, limit, 600.0)  # Silence alone ends none of them here.
    tls = served(authority) if secure else None
    client = ssl.create_default_context(cafile=authority.own.cert) if secure else None
    async with listening(tls) as listener:
        await until_asked(listener, client, 3)
        async with AsyncExitStack() as silent:
            # Some more than fit: the end of the first one may not have been noticed yet.
            for _ in range(MAX_CONNECTIONS + 4):
                await silent.enter_async_context(connection(listener))
            # Without this bound, whoever opens connections and sends nothing takes all files of the process.
            await until_asked(listener, client, None)
        await until_asked(listener, client, 3)


async def test_clients_that_fail_the_handshake_take_no_place(authority: Authority) -> None:
    client = ssl.create_default_context(cafile=authority.own.cert)
    async with listening(served(authority)) as listener:
        for _ in range(MAX_CONNECTIONS + 1):
            async with connection(listener) as (reader, writer):
                writer.write(REQUEST)
                assert b"replicas" not in await read(reader)
        await until_asked(listener, client, 3)


async def test_other_settings_are_for_the_connections_after_them(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    old = ssl.create_default_context(cafile=authority.own.cert)
    new = ssl.create_default_context(cafile=other.own.cert)
    async with listening(served(authority)) as listener:
        await until_asked(listener, old, 3)
        async with connection(listener, old) as (reader, writer):
            listener.secure(served(other))
            await until_asked(listener, new, 3)
            assert await asked(listener, old) is None
            writer.write(REQUEST)
            assert b'"replicas": 3' in await read(reader)
