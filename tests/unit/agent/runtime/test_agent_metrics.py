"""The page of metrics is the table, and what is shown is in the table."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import agent
from agent.drivers.simulated import SimulatedDriver
from agent.ports import DriverErrorKind, GpuOwner
from agent.runtime.agent_metrics import METRICS, page
from agent.runtime.http import HttpPage, HttpPages
from agent.runtime.metrics import exposition, samples
from agent.runtime.service import PowerAgentService
from agent.runtime.settings import PowerAgentSettings


class Owners:
    async def owners(self) -> dict[str, GpuOwner]:
        return {"GPU-n-00": GpuOwner("d", "decode", "decode", "w", 'ns/"odd"')}


async def looked() -> PowerAgentService:
    driver = SimulatedDriver.of("n", 2)
    driver.gpus["GPU-n-01"].faults = {"read": DriverErrorKind.GPU_LOST}
    service = PowerAgentService(PowerAgentSettings(node="n"), None, driver, Owners())
    task = asyncio.create_task(service.run())
    async with asyncio.timeout(30):
        while not service.tenants.owners:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return service


def test_the_page_is_made_from_the_table() -> None:
    written = (Path(agent.__file__).parent / "METRICS.md").read_text()
    assert written == page(), "run: python -m agent.runtime.agent_metrics > agent/METRICS.md"


async def test_every_value_shown_is_in_the_table_with_its_labels() -> None:
    service = await looked()
    known = {metric.name: metric for metric in METRICS}
    found = list(samples(service))
    assert found
    for sample in found:
        assert set(sample.labels) == set(known[sample.name].labels)


async def test_the_text_is_prometheus_text_and_what_is_unknown_is_left_out() -> None:
    service = await looked()
    text = exposition(samples(service))
    for line in text.splitlines():
        assert line.startswith("# ") or re.fullmatch(r'[a-z_]+\{([a-zA-Z_]+="(\\.|[^"\\])*",?)+\} -?[0-9.e+]+', line), (
            line
        )
    assert 'pod="ns/\\"odd\\""' in text
    draws = [line for line in text.splitlines() if line.startswith("wattscale_gpu_draw_watts{")]
    assert len(draws) == 1
    assert re.search(r'wattscale_gpu_health\{UUID="GPU-n-01".*state="quarantined"\} 1', text)
    assert "wattscale_agent_bus_connected" not in text


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_pages_are_served_and_nothing_else() -> None:
    pages = HttpPages("127.0.0.1", 0, {"/livez": lambda: HttpPage("ok\n"), "/readyz": lambda: HttpPage("no\n", 503)})
    task = asyncio.create_task(pages.run())
    async with asyncio.timeout(30):
        while not pages.port:
            await asyncio.sleep(0.01)
    assert (await ask(pages.port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"503 Service Unavailable" in await ask(pages.port, b"GET /readyz?x=1 HTTP/1.1\r\n\r\n")
    assert b" 404 " in await ask(pages.port, b"GET /secret HTTP/1.1\r\n\r\n")
    assert b" 405 " in await ask(pages.port, b"POST /livez HTTP/1.1\r\n\r\n")
    assert await ask(pages.port, b"x" * 40_000 + b"\r\n\r\n") == b""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
