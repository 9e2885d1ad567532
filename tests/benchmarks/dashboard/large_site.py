"""What the dashboard costs with 10,000 GPUs, 200 deployments and ten viewers, one of them a real browser.

A real nats-server, every node reporting once a second with other draws, ``wattscale dashboard`` as a process. Prints
its share of a core, bytes a viewer and second, the browser's first paint and main-thread time an update. Run:
``python -m tests.benchmarks.dashboard.large_site [NODES] [DEPLOYMENTS] [VIEWERS] [SECONDS]``.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from bus_schemas import codec, v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus
from deploy.nats.embedded import EmbeddedServer
from tests.contract.bus import connected, until
from tests.doubles.browser import BrowserTab, browser_page
from tests.doubles.seen_site import decision, gpu, power, record, report, subject_of

ROOT = Path(__file__).resolve().parents[3]
GPUS = 8
TICK_S = 30.0
READ_WAIT_S = 120.0


async def send(bus: Bus, message: v1.Message) -> None:
    """Store a message without waiting for the server's answer."""
    await bus.nc.publish(subject_of(bus, message), codec.encode(message))


def other_draws(base: v1.NodeTelemetry) -> v1.NodeTelemetry:
    """The node's next report: every GPU draws something else."""
    gpus = tuple(one.model_copy(update={"draw_watts": random.uniform(250, 399)}) for one in base.gpus)
    return base.model_copy(update={"gpus": gpus, "time": datetime.now(UTC)})


async def furnish(bus: Bus, nodes: int, deployments: int) -> tuple[list[v1.NodeTelemetry], list[v1.PlanRecord]]:
    """Put a site on the bus; its reports and records, from which the next ones are made."""
    reports, records = [], []
    for index in range(deployments):
        name = f"chat-{index}"
        await send(bus, decision(1, 6).model_copy(update={"deployment": name}))
        records.append(record(1).model_copy(update={"deployment": name, "budget_watts": 1e7}))
    for index in range(nodes):
        node, owner = f"node-{index}", f"chat-{index % deployments}"
        await send(bus, power(node, 0, budget_watts=1e7))
        reports.append(report(node, *(gpu(node, place, deployment=owner) for place in range(GPUS))))
    for message in (*records, *reports):
        await send(bus, message)
    await bus.nc.flush()
    return reports, records


VARIANTS = 4
"""Reports of a node made beforehand: to make each anew would take longer than the dashboard takes to read it."""


async def live(bus: Bus, reports: list[v1.NodeTelemetry], records: list[v1.PlanRecord], sent: list[int]) -> None:
    """Every node once a second, every deployment once a tick, forever; ``sent`` counts the reports."""
    loop = asyncio.get_running_loop()
    made = [[codec.encode(other_draws(base)).split(b'"time":"', 1) for base in reports] for _ in range(VARIANTS)]
    subjects = [subject_of(bus, base) for base in reports]
    second = 0
    while True:
        began_s = loop.time()
        now = datetime.now(UTC).isoformat().encode()
        for index, (before, after) in enumerate(made[second % VARIANTS]):
            await bus.nc.publish(subjects[index], before + b'"time":"' + now + after[after.index(b'"') :])
            sent[0] += 1
            if index % 50 == 49:
                await asyncio.sleep(max(0.0, began_s + index / len(reports) - loop.time()))
        for index, one in enumerate(records):
            if index % int(TICK_S) == second % int(TICK_S):
                await send(bus, one.model_copy(update={"time": datetime.now(UTC)}))
        second += 1
        await asyncio.sleep(max(0.0, began_s + 1.0 - loop.time()))


def cpu_s(pid: int) -> float:
    """Processor seconds that a process used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def viewer(url: str, received: list[int], read: asyncio.Event) -> None:
    """An open page, as far as the server can tell; the number of bytes goes into ``received``.

    ``read`` is set once the dashboard has read what the streams hold.
    """
    async with aiohttp.ClientSession() as session, session.get(f"{url}events", timeout=None) as answer:
        async for chunk in answer.content.iter_any():
            received[0] += len(chunk)
            if b'"read":true' in chunk:
                read.set()


async def first_paint(page: BrowserTab, url: str, gpus: int) -> tuple[float, float]:
    """Seconds from the navigation to the first paint, and to the picture of the whole fleet."""
    began_s = time.monotonic()
    await page.open(url)
    label = "document.getElementById('fleet')?.ariaLabel ?? ''"

    async def painted() -> bool:
        return str(await page.evaluate(label)).startswith(f"{gpus} GPUs")

    await until(painted, "the fleet to be painted", 120.0)
    whole_s = time.monotonic() - began_s
    first_ms = await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return first_ms / 1000, whole_s


async def task_s(page: BrowserTab) -> float:
    """Processor seconds that the page's main thread has worked."""
    found = await page.call("Performance.getMetrics")
    return float(next(one["value"] for one in found["metrics"] if one["name"] == "TaskDuration"))


async def measure(nodes: int, deployments: int, viewers: int, seconds: float) -> None:
    """Run it and print."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = await stack.enter_async_context(EmbeddedServer(folder))
        bus = await stack.enter_async_context(connected(server.url, "bench"))
        await stream_admin.apply(bus)
        reports, records = await furnish(bus, nodes, deployments)
        arguments = ("-m", "deploy.cli.main", "dashboard", "--nats-url", server.url, "--port", "0")
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().removeprefix("dashboard on ").strip()
        sent = [0]
        received = [[0] for _ in range(viewers - 1)]
        read = asyncio.Event()
        tasks = [asyncio.create_task(viewer(url, one, read)) for one in received]
        tasks.append(asyncio.create_task(live(bus, reports, records, sent)))
        page = await stack.enter_async_context(browser_page())
        await page.call("Performance.enable", timeDomain="threadTicks")
        await page.size(1280, 900)
        # The first viewer starts the reading of the bus; the last one, which is measured, comes to what is there.
        await asyncio.wait_for(read.wait(), READ_WAIT_S)
        await asyncio.sleep(5.0)
        first_s, whole_s = await first_paint(page, url, nodes * GPUS)
        load = os.getloadavg()[0]
        print(f"{nodes * GPUS} GPUs, {deployments} deployments, {viewers} viewers, {load:.0f} processes want a core")
        print(f"first paint {first_s:.2f} s, whole fleet after {whole_s:.2f} s")
        await asyncio.sleep(3.0)
        used_s, bytes_before, main_s = cpu_s(process.pid), [one[0] for one in received], await task_s(page)
        began_s, sent_before = time.monotonic(), sent[0]
        await asyncio.sleep(seconds)
        took_s = time.monotonic() - began_s
        share = (cpu_s(process.pid) - used_s) / took_s
        rates = [(one[0] - before) / took_s for one, before in zip(received, bytes_before, strict=True)]
        main_ms = (await task_s(page) - main_s) / took_s * 1000
        print(f"{(sent[0] - sent_before) / took_s:.0f} reports a second")
        print(f"dashboard process {share:.1%} of a core")
        print(f"{statistics.median(rates) / 1000:.1f} kB a viewer and second")
        print(f"main thread of the page {main_ms:.0f} ms a second: one update, and ages that count up")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Print the measurements."""
    given = [float(one) for one in sys.argv[1:]]
    nodes, deployments, viewers, seconds = [*given, *(1250.0, 200.0, 10.0, 20.0)[len(given) :]]
    asyncio.run(measure(int(nodes), int(deployments), int(viewers), seconds))


if __name__ == "__main__":
    main()
