"""What the page adds inside a planner that leads 10,000 GPUs and 200 deployments, with ten viewers.

One ``wattscale planner run`` on a real nats-server. Its page is opened by all viewers and left by all of them, in turn,
and the processor time of the planner's process (not the time by the clock) with and without them is compared within the
same run. Every node reports once a second and answers its decisions; a stub answers the planner's questions about
metrics with nothing, so that counts are held. Each phase with viewers lies between two without, which drift evenly.
Phases are of one tick. The median of the pairs is the result; what two neighbours without viewers differ by is the
floor below which the run says nothing. Beside it stands what the
page's own steps take by the clock of their thread, which other processes do not disturb. Run:
``python -m tests.benchmarks.dashboard.in_planner [NODES] [DEPLOYMENTS] [VIEWERS] [TIMES]``.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from bus_schemas import codec, v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.task_group import ended
from bus_schemas.jetstream.watch import follow
from deploy.dashboard.feed import UNWATCHED_S
from deploy.nats.embedded import EmbeddedServer
from tests.benchmarks.dashboard import metered_planner
from tests.benchmarks.dashboard.large_site import GPUS, READ_WAIT_S, ROOT, TICK_S, VARIANTS, cpu_s, other_draws, viewer
from tests.benchmarks.dashboard.metered_planner import page_s
from tests.contract.bus import connected
from tests.doubles.seen_site import SITE, gpu, report

SETTLE_S = 5.0
"""Between the end of the page's first reading and the measuring."""
START_S = 60.0
"""In which the planner takes the lead, reads the streams and works off what came meanwhile."""
BOUND = 0.05
"""Of a core: what the page may add."""


@dataclass(slots=True)
class SentCounts:
    """What the nodes sent so far: reports, and answers to decisions."""

    sent: int = 0
    answered: int = 0


@dataclass(slots=True)
class ReportingNode:
    """One node's agent: its next reports, ready but for time and number, and the decision that it carries out."""

    subject: str
    base: v1.NodeTelemetry
    bodies: list[bytes] = field(default_factory=list)
    caps: tuple[float, ...] = ()
    applied: int = -1

    def prepared(self) -> None:
        """Make the bodies anew, after the caps changed."""
        stamp = datetime.fromtimestamp(0, UTC)
        found = []
        for _ in range(VARIANTS):
            text = codec.encode(other_draws(self.base).model_copy(update={"time": stamp}))
            found.append(
                text.replace(b"1970-01-01T00:00:00Z", b"@TIME@").replace(b'_decision_id":-1', b'_decision_id":@ID@')
            )
        self.bodies = found

    def body(self, number: int, now: bytes) -> bytes:
        """The report of second ``number``."""
        text = self.bodies[number % VARIANTS]
        return text.replace(b"@TIME@", now).replace(b"@ID@", str(self.applied).encode())

    def apply(self, decision: v1.PowerDecision) -> v1.PowerAck:
        """Take the caps; the answer."""
        caps = tuple(cap.cap_watts for cap in decision.caps)
        self.applied = decision.decision_id
        if caps != self.caps:
            self.caps = caps
            by_name = {cap.gpu: cap.cap_watts for cap in decision.caps}
            limits = [{"enforced_watts": by_name[one.gpu], "granted_watts": by_name[one.gpu]} for one in self.base.gpus]
            gpus = tuple(one.model_copy(update=limit) for one, limit in zip(self.base.gpus, limits, strict=True))
            self.base = self.base.model_copy(update={"gpus": gpus})
            self.prepared()
        in_force = tuple(
            v1.GpuInForce(gpu=cap.gpu, requested_watts=cap.cap_watts, enforced_watts=cap.cap_watts)
            for cap in decision.caps
        )
        return v1.PowerAck(
            time=datetime.now(UTC), node=decision.node, decision_id=decision.decision_id,
            applied_decision_id=decision.decision_id, incarnation=decision.incarnation, epoch=decision.epoch,
            status=v1.AckStatus.APPLIED, gpus=in_force, boot="boot",
        )  # fmt: skip


def nodes_of(bus: Bus, count: int, deployments: int) -> dict[str, ReportingNode]:
    """The nodes by name, their GPUs held by the deployments in turn."""
    found = {}
    for index in range(count):
        name = f"node-{index}"
        gpus = [gpu(name, place, deployment=f"chat-{index % deployments}") for place in range(GPUS)]
        base = report(name, *gpus, applied=-1).model_copy(update={"boot": "boot"})
        found[name] = ReportingNode(bus.subjects.telemetry_node(name), base)
        found[name].prepared()
    return found


async def reporting(bus: Bus, nodes: Sequence[ReportingNode], counts: SentCounts) -> None:
    """Every node once a second, until cancelled."""
    loop = asyncio.get_running_loop()
    second = 0
    while True:
        began_s, now = loop.time(), datetime.now(UTC).isoformat().encode()
        for index, node in enumerate(nodes):
            await bus.nc.publish(node.subject, node.body(second, now))
            counts.sent += 1
            if index % 50 == 49:
                await asyncio.sleep(max(0.0, began_s + index / len(nodes) - loop.time()))
        second += 1
        await asyncio.sleep(max(0.0, began_s + 1.0 - loop.time()))


async def answering(bus: Bus, nodes: dict[str, ReportingNode], counts: SentCounts) -> None:
    """Carry out and acknowledge every power decision, until cancelled."""
    async for stored in follow(bus, bus.subjects.all_of("decision", "power"), 0):
        decision = stored.message
        assert isinstance(decision, v1.PowerDecision)
        ack = nodes[decision.node].apply(decision)
        await bus.nc.publish(bus.subjects.ack_power(decision.node), codec.encode(ack))
        counts.answered += 1


@asynccontextmanager
async def without_metrics() -> AsyncIterator[str]:
    """A Prometheus that knows no series; its address."""

    async def nothing(request: web.Request) -> web.Response:
        query = str((await request.post()).get("query", ""))
        of_series = {"resultType": "vector", "result": []}
        of_time = {"resultType": "scalar", "result": [time.time(), str(time.time())]}
        return web.json_response({"status": "success", "data": of_series if "{" in query else of_time})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", nothing)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def settings_of(url: str, metrics: str, nodes: int, deployments: int) -> dict[str, Any]:
    """The planner's settings: one site with watts for all, every deployment sized by thresholds."""
    return {
        "bus": {"servers": [url], "request_timeout_s": 30.0},
        "interval_s": TICK_S,
        "health": {"port": None},
        "dashboard": {"port": 0},
        "prometheus": {"url": metrics},
        "provision": False,
        "sites": {SITE: {"budget_watts": nodes * GPUS * 700.0, "expected_gpus": nodes * GPUS}},
        "deployments": {f"chat-{index}": {"site": SITE, "sizing": "load"} for index in range(deployments)},
    }


async def page_of(process: asyncio.subprocess.Process) -> str:
    """The address that the planner logs; its log is read on, so that it never waits for its reader."""
    assert process.stderr is not None
    while True:
        line = json.loads(await process.stderr.readline())
        if line["message"].startswith("dashboard on "):
            return str(line["message"].removeprefix("dashboard on "))


async def drained(process: asyncio.subprocess.Process) -> None:
    """Read the planner's log to its end, and print what is not well, but for the metrics that it is not given."""
    assert process.stderr is not None
    async for line in process.stderr:
        read = json.loads(line)
        if read["level"] != "info" and read["logger"] != "planner.interval":
            print("planner:", line.decode().strip()[:300], file=sys.stderr)


@dataclass(frozen=True, slots=True)
class MeasuredPlanner:
    """A running planner: its process id, its page's address, and the file that holds its page's processor time."""

    pid: int
    url: str
    meter: Path

    async def shares(self, seconds: float) -> tuple[float, float]:
        """The parts of a core that the process, and the steps of its page, use from now on for so long."""
        used_s, own_s, began_s = cpu_s(self.pid), page_s(self.meter), time.monotonic()
        await asyncio.sleep(seconds)
        took_s = time.monotonic() - began_s
        return (cpu_s(self.pid) - used_s) / took_s, (page_s(self.meter) - own_s) / took_s


async def watched_shares(planner: MeasuredPlanner, viewers: int, seconds: float) -> tuple[float, float, float]:
    """The same while so many pages are open, and the bytes that each is sent a second."""
    read, received = asyncio.Event(), [[0] for _ in range(viewers)]
    tasks = [asyncio.create_task(viewer(planner.url, one, read)) for one in received]
    try:
        await asyncio.wait_for(read.wait(), READ_WAIT_S)
        await asyncio.sleep(SETTLE_S)
        before, began_s = [one[0] for one in received], time.monotonic()
        share, own = await planner.shares(seconds)
        took_s = time.monotonic() - began_s
        return share, own, statistics.median((one[0] - was) / took_s for one, was in zip(received, before, strict=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def led_site(nodes: int, deployments: int, counts: SentCounts) -> AsyncIterator[MeasuredPlanner]:
    """A site, its reporting nodes and its planner."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = await stack.enter_async_context(EmbeddedServer(folder))
        bus = await stack.enter_async_context(connected(server.url, "bench", request_timeout_s=30.0))
        await stream_admin.apply(bus)
        metrics = await stack.enter_async_context(without_metrics())
        fleet = nodes_of(bus, nodes, deployments)
        file = folder / "planner.yaml"
        file.write_text(yaml.safe_dump(settings_of(server.url, metrics, nodes, deployments)))
        meter = folder / "page.seconds"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", metered_planner.__name__, str(meter), "planner", "run", "-c", str(file),
            cwd=ROOT, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        stack.callback(process.kill)
        url = await page_of(process)
        work = (reporting(bus, list(fleet.values()), counts), answering(bus, fleet, counts), drained(process))
        tasks = [asyncio.create_task(one) for one in work]
        try:
            yield MeasuredPlanner(process.pid, url, meter)
        finally:
            await ended(*tasks)


async def measure(nodes: int, deployments: int, viewers: int, times: int) -> None:
    """Run it and print."""
    counts, added, drifts, owns = SentCounts(), list[float](), list[float](), list[float]()
    async with led_site(nodes, deployments, counts) as planner:
        await asyncio.sleep(START_S)
        print(f"{nodes * GPUS} GPUs, {deployments} deployments, {viewers} viewers; phases of {TICK_S:.0f} s")
        before, _ = await planner.shares(TICK_S)
        for _ in range(times):
            sent, answered, began_s = counts.sent, counts.answered, time.monotonic()
            watched, own, bytes_s = await watched_shares(planner, viewers, TICK_S)
            took_s = time.monotonic() - began_s
            rates = [(now - was) / took_s for now, was in ((counts.sent, sent), (counts.answered, answered))]
            await asyncio.sleep(UNWATCHED_S + SETTLE_S)
            after, _ = await planner.shares(TICK_S)
            added.append(watched - (before + after) / 2)
            drifts.append(abs(after - before))
            owns.append(own)
            print(
                f"planner {before:.1%} and {after:.1%} of a core, between them with page and viewers {watched:.1%}: "
                f"{added[-1]:+.1%}, its own steps {own:.1%}; {bytes_s / 1000:.1f} kB a viewer and second; "
                f"{rates[0]:.0f} reports and {rates[1]:.0f} decisions a second; "
                f"{os.getloadavg()[0]:.1f} processes want a core",
                flush=True,
            )
            before = after
    print(verdict(added, drifts))
    print(f"its own steps take {statistics.median(owns):.1%} of a core ({min(owns):.1%} to {max(owns):.1%})")


def verdict(added: Sequence[float], drifts: Sequence[float]) -> str:
    """What the pairs say: the median of what was added, its spread, and the floor.

    The mean of two neighbours is wrong by up to half of what they differ by.
    """
    middle, floor = statistics.median(added), statistics.median(drifts) / 2
    said = "held" if middle < BOUND else "MISSED"
    if floor >= BOUND:
        said = "not told by this machine, on which the planner without the page wanders by more"
    ratio = f", {middle / floor:.1f} times the floor" if floor > 0.0 else ""
    return (
        f"the page adds {middle:.1%} of a core (median of {len(added)}; {min(added):.1%} to {max(added):.1%}; "
        f"floor {floor:.1%}{ratio}); bound {BOUND:.0%}: {said}"
    )


def main() -> None:
    """Print the measurements."""
    given = [int(one) for one in sys.argv[1:]]
    nodes, deployments, viewers, times = [*given, *(1250, 200, 10, 4)[len(given) :]]
    asyncio.run(measure(nodes, deployments, viewers, times))


if __name__ == "__main__":
    main()
