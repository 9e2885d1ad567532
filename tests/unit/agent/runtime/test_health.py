"""The agent's HTTP server answers its three paths and cannot be held up by its clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.drivers.simulated import SimulatedDriver
from agent.ports import NoOwners
from agent.runtime.health import AgentHealthServer
from agent.runtime.service import PowerAgentService
from agent.runtime.settings import PowerAgentSettings
from tests.contract.bus import until
from tests.raw_http import ask

REQUEST_S = 0.5
MAX_CONNECTIONS = 4


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """A server on a port that the system chose, for an agent that has not read its GPUs."""
    service = PowerAgentService(PowerAgentSettings(node="n"), None, SimulatedDriver.of("n", 1), NoOwners())
    server = AgentHealthServer(
        service,
        lambda: b"wattscale 1\n",
        host="127.0.0.1",
        port=0,
        request_s=REQUEST_S,
        max_connections=MAX_CONNECTIONS,
    )
    task = asyncio.create_task(server.run())
    try:
        await until(lambda: bool(server.url), "the server to listen")
        yield int(server.url.rpartition(":")[2])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_three_paths_are_answered_and_nothing_else() -> None:
    async with serving() as port:
        live = await ask(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert live.startswith(b"HTTP/1.1 200 OK\r\n")
        assert live.endswith(b"\r\n\r\nok\n")
        ready = await ask(port, b"GET /readyz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 503 Service Unavailable\r\n" in ready
        assert ready.endswith(b"not ready: the GPUs have not been read yet\n")
        metrics = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"text/plain; version=0.0.4" in metrics
        assert metrics.endswith(b"wattscale 1\n")
        assert b" 404 " in await ask(port, b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 405 " in await ask(port, b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")


async def test_bad_requests_are_refused_without_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as port:
        assert b" 200 " not in await ask(port, b"x" * 40_000 + b"\r\n\r\n")
        assert b" 400 " in await ask(port, b"GET /livez HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n")
        assert b" 200 " not in await ask(port, b"GET /livez HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n")
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_request_that_is_half_sent_is_cut_off() -> None:
    async with serving() as port:
        began_s = time.monotonic()
        assert await ask(port, b"GET /livez HTTP/1.1\r\nHost:") == b""
        assert await ask(port, b"") == b""
        assert await ask(port, b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc") != b""
        assert time.monotonic() - began_s < 15


async def test_a_connection_above_the_limit_is_refused_until_others_have_ended() -> None:
    async with serving() as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        await asyncio.sleep(0.05)
        assert await ask(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(60):
            while not (await ask(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"ok\n"):
                await asyncio.sleep(0.02)
