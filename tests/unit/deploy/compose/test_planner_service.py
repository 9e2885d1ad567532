"""The planner's process ends in time whatever it waits for: a silent server, a reader that does not read, a
collector that hangs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from planner.runtime.telemetry import tracing
from planner.runtime.telemetry.health import HealthServer
from planner.runtime.telemetry.liveness import Liveness
from planner.runtime.telemetry.tracing import Tracing
from tests.integration.planner.test_commands import planner_process, settings

MORE_THAN_SOCKETS_HOLD = 32_000_000


async def test_a_sigterm_while_connecting_ends_at_once(tmp_path: Path) -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(stay_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    file = settings(tmp_path, bus={"servers": [f"nats://127.0.0.1:{port}"], "connect_timeout_s": 60})
    try:
        async with planner_process(file) as process:
            await asyncio.wait_for(came.wait(), 60)
            process.terminate()
            _, said = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 0, said.decode()
    finally:
        gone.set()
        server.close()


async def test_a_client_that_does_not_read_its_page_is_not_waited_for() -> None:
    asked = asyncio.Event()

    def page() -> bytes:
        asked.set()
        return bytes(MORE_THAN_SOCKETS_HOLD)

    health = HealthServer(
        Liveness(),
        lambda: True,
        page,
        host="127.0.0.1",
        port=0,
        interval_s=1.0,
        live_within_s=5.0,
        clock=time.monotonic,
    )
    serving = asyncio.create_task(health.run())
    async with asyncio.timeout(60):
        while not health.url:
            await asyncio.sleep(0.01)
    _, writer = await asyncio.open_connection("127.0.0.1", int(health.url.rsplit(":", 1)[1]))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
    await asyncio.wait_for(asked.wait(), 60)
    serving.cancel()
    await asyncio.wait([serving], timeout=10)
    writer.close()
    assert serving.cancelled()


class Hanging(SpanExporter):
    """A collector that does not answer."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.free.wait(60)
        return SpanExportResult.SUCCESS


def test_a_collector_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "LAST_TRACES_S", 0.1)
    collector = Hanging()
    traces = Tracing(collector)
    traces._tracer.start_span("tick").end()
    before_s = time.monotonic()
    try:
        traces.close()
        assert time.monotonic() - before_s < 30
    finally:
        collector.free.set()
