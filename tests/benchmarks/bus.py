"""What the bus costs, beside the floor of bare NATS and bare TCP measured in the same run. No pytest, no assertions.

    python tests/benchmarks/bus.py [--json FILE|-] [--agents 100,1000,5000] [--rounds 2000]

Prints a table; ``--json`` writes the same as JSON. Of both round trips, ours and the floor's, the answering side is a
process of its own, as on a real site; the waves' agents are all in this one process. Servers are started for the run.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nats.aio.client import Client
from nats.errors import NoRespondersError

from bus_schemas import v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.consumer import Consumer, Delivery, Durable, ensure, ensure_all
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.publisher import Outgoing, Publisher
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.jetstream.watch import follow
from deploy.event_loop import run
from deploy.nats.embedded import EmbeddedServer

WARM_UP = 200
AGENTS_PER_CONNECTION = 250
READBACKS: dict[str, tuple[v1.GpuInForce, ...]] = {}


def report(line: str) -> None:
    """Progress goes to standard error, so that ``--json -`` stays clean."""
    print(line, file=sys.stderr, flush=True)


def shares(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50": round(statistics.median(ordered) * 1e3, 4),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3, 4),
    }


def decision(node: str, number: int, gpus: int = 8) -> v1.PowerDecision:
    """One node's eight caps, as a planner sends them."""
    caps = tuple(
        v1.GpuCap(gpu=f"GPU-{i:08d}-{node}", cap_watts=500.0, fallback_watts=200.0, charged_watts=510.0)
        for i in range(gpus)
    )
    return v1.PowerDecision(
        time=datetime.now(UTC), node=node, decision_id=number, incarnation="bench", epoch=1, valid_for_s=30.0, caps=caps
    )


def applied(message: v1.PowerDecision) -> v1.PowerAck:
    """What an agent answers. Its readback is its own affair, so that of the first decision is given again."""
    gpus = READBACKS.get(message.node) or READBACKS.setdefault(
        message.node,
        tuple(
            v1.GpuInForce(gpu=cap.gpu, requested_watts=cap.cap_watts, enforced_watts=cap.cap_watts)
            for cap in message.caps
        ),
    )
    return v1.PowerAck(
        time=datetime.now(UTC),
        node=message.node,
        decision_id=message.decision_id,
        applied_decision_id=message.decision_id,
        incarnation=message.incarnation,
        epoch=message.epoch,
        status=v1.AckStatus.APPLIED,
        gpus=gpus,
    )


async def timed(work: Callable[[], Awaitable[object]], rounds: int) -> list[float]:
    """Seconds of each round after a warm-up."""
    taken = []
    for round_ in range(WARM_UP + rounds):
        start = time.perf_counter()
        await work()
        if round_ >= WARM_UP:
            taken.append(time.perf_counter() - start)
    return taken


@asynccontextmanager
async def peer(url: str, what: str) -> AsyncIterator[None]:
    """The answering side as a process of its own, as on a real site: a bare responder, or an agent."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", what, "--url", url]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def serve(what: str, url: str) -> None:
    """Answer until terminated."""
    if what == "agent":
        await BenchmarkAgent(await open_bus(url, "agent"), "n0").consumer.run()
        return
    answering = Client()
    await answering.connect(url)

    async def reply(message: Any) -> None:
        await answering.publish(message.reply, message.data)

    await answering.subscribe("bench.floor", cb=reply)
    await asyncio.Event().wait()


async def request_reply(url: str, rounds: int, body: bytes) -> list[float]:
    """TWO bare requests and their replies, one after the other."""
    asking = Client()
    await asking.connect(url)

    async def twice() -> None:
        await asking.request("bench.floor", body, timeout=5)
        await asking.request("bench.floor", body, timeout=5)

    try:
        async with peer(url, "floor"):
            while True:
                try:
                    await asking.request("bench.floor", body, timeout=5)
                    break
                except NoRespondersError:
                    await asyncio.sleep(0.01)
            return await timed(twice, rounds)
    finally:
        await asking.close()


async def tcp_ping_pong(rounds: int, body: bytes) -> list[float]:
    """A bare asyncio TCP ping-pong."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(await reader.readexactly(len(body)))
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])

    async def once() -> None:
        writer.write(body)
        await reader.readexactly(len(body))

    try:
        return await timed(once, rounds)
    finally:
        writer.close()
        server.close()


class BenchmarkAgent:
    """The real loop with nothing to set."""

    def __init__(self, bus: Bus, node: str) -> None:
        durable = Durable.power(bus, node)
        self.consumer = Consumer(
            bus, durable.stream, durable.name, durable.subject, self._apply, result_subject=bus.subjects.ack_power(node)
        )

    async def _apply(self, delivery: Delivery) -> v1.Message:
        assert isinstance(delivery.message, v1.PowerDecision)  # the stream holds nothing else
        return applied(delivery.message)


class BenchmarkPlanner:
    """Publishes fenced batches and sees acknowledgements as the service does."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.leadership = Leadership(bus, "bench", 30)
        self.publisher = Publisher(bus, self.leadership)
        self._wanted: set[tuple[str, int]] = set()
        self._all = asyncio.Event()
        self._numbers = 0

    async def listen(self) -> None:
        """Every acknowledgement, until cancelled."""
        async for stored in follow(self.bus, self.bus.subjects.all_acks()):
            ack = stored.message
            if isinstance(ack, v1.PowerAck):
                self._wanted.discard((ack.node, ack.applied_decision_id))
                if not self._wanted:
                    self._all.set()

    async def wave(self, nodes: list[str]) -> float:
        """One decision for each node, until all are acknowledged; seconds from publishing to the last one seen."""
        number, self._numbers = self._numbers, self._numbers + 1
        self._wanted = {(node, number) for node in nodes}
        self._all.clear()
        items = [
            Outgoing(self.bus.subjects.decision_power(node), decision(node, number), f"{node}-{number}")
            for node in nodes
        ]
        start = time.perf_counter()
        # The acknowledgement may be seen before the server's answer to the publication.
        publishing = asyncio.ensure_future(self.publisher.publish_batch(items))
        async with asyncio.timeout(120):
            await self._all.wait()
        taken = time.perf_counter() - start
        await publishing
        return taken


async def open_bus(url: str, name: str) -> Bus:
    """A connection with patience for a busy machine."""
    return await connect(BusSettings(servers=(url,), name=name, request_timeout_s=30.0, connect_timeout_s=30.0))


async def with_planner(
    sync_always: bool,
    work: Callable[[EmbeddedServer, BenchmarkPlanner, set[asyncio.Task[None]]], Coroutine[Any, Any, Any]],
) -> Any:
    """Run ``work`` on a fresh server with streams and a leading planner."""
    with tempfile.TemporaryDirectory(prefix="wattscale-bench-") as folder:
        async with EmbeddedServer(folder, sync_always=sync_always) as server:
            bus = await open_bus(server.url, "planner")
            await stream_admin.apply(bus)
            planner = BenchmarkPlanner(bus)
            await planner.leadership.acquire()
            tasks = {asyncio.create_task(planner.listen()), asyncio.create_task(planner.leadership.keep())}
            try:
                return await work(server, planner, tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await bus.close()


async def round_trip(
    server: EmbeddedServer, planner: BenchmarkPlanner, _: set[asyncio.Task[None]], rounds: int
) -> list[float]:
    """Decision published, carried out by an agent's loop in its own process, acknowledgement seen."""
    await ensure(planner.bus, Durable.power(planner.bus, "n0"))
    async with peer(server.url, "agent"):
        return [await planner.wave(["n0"]) for _ in range(WARM_UP + rounds)][WARM_UP:]


async def fan_out(
    server: EmbeddedServer, planner: BenchmarkPlanner, tasks: set[asyncio.Task[None]], agents: int
) -> dict[str, Any]:
    """One decision for each of many agents at once; the best of three waves after a warm-up."""
    nodes = [f"node-{i}" for i in range(agents)]
    await ensure_all(planner.bus, [Durable.power(planner.bus, node) for node in nodes])
    buses = [await open_bus(server.url, f"agents-{i}") for i in range(0, agents, AGENTS_PER_CONNECTION)]
    for index, node in enumerate(nodes):
        tasks.add(asyncio.create_task(BenchmarkAgent(buses[index // AGENTS_PER_CONNECTION], node).consumer.run()))
    # What stands now stands until the end: not to be searched for garbage with every wave.
    gc.collect()
    gc.freeze()
    rates = [agents / await planner.wave(nodes) for _ in range(4)]
    gc.unfreeze()
    memory = rss_mb(server.pid)
    for bus in buses:
        await bus.close()
    return {"agents": agents, "per_second": round(max(rates[1:])), "server_rss_mb": round(memory, 1)}


async def publications(
    server: EmbeddedServer, planner: BenchmarkPlanner, _: set[asyncio.Task[None]], batches: int
) -> float:
    """Fenced decisions stored a second, in batches of ten."""
    number = 1_000_000
    start = time.perf_counter()
    for batch in range(batches):
        items = []
        for index in range(10):
            message = decision(f"p{index}", number + batch)
            subject = planner.bus.subjects.decision_power(message.node)
            items.append(Outgoing(subject, message, f"{message.node}-{message.decision_id}"))
        await planner.publisher.publish_batch(items)
    return batches * 10 / (time.perf_counter() - start)


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


async def measure(agents: list[int], rounds: int) -> dict[str, Any]:
    """All of it; the keys are the contract of ``--json``."""
    body = decision("n0", 0).model_dump_json().encode()
    result: dict[str, Any] = {"floor": {}, "waves": [], "publish": []}
    report("floor")
    result["floor"]["tcp_ms"] = shares(await tcp_ping_pong(rounds, body))
    async with EmbeddedServer() as server:
        result["floor"]["request_reply_ms"] = shares(await request_reply(server.url, rounds, body))
    for name, always in (("round_trip_ms", False), ("round_trip_sync_always_ms", True)):
        report(name)
        some = rounds if not always else min(rounds, 500)
        result[name] = shares(await with_planner(always, lambda s, p, t, n=some: round_trip(s, p, t, n)))  # type: ignore[misc]
    floor, ours = result["floor"]["request_reply_ms"], result["round_trip_ms"]
    result["times_floor"] = {key: round(ours[key] / floor[key], 3) for key in ("p50", "p99")}
    for count in agents:
        report(f"wave to {count} agents")
        result["waves"].append(await with_planner(False, lambda s, p, t, n=count: fan_out(s, p, t, n)))  # type: ignore[misc]
    for always in (False, True):
        report(f"publish, sync {'always' if always else 'default'}")
        rate = await with_planner(always, lambda s, p, t: publications(s, p, t, 300))
        result["publish"].append({"sync": "always" if always else "default", "per_second": round(rate)})
    result["machine"] = {"python": platform.python_version(), "loop": type(asyncio.get_running_loop()).__module__}
    return result


def table(result: dict[str, Any]) -> str:
    """The same for people."""
    floor, ours, sync = result["floor"], result["round_trip_ms"], result["round_trip_sync_always_ms"]

    def row(name: str, values: dict[str, float], digits: int = 3) -> str:
        return f"{name:44}{values['p50']:>10.{digits}f}{values['p99']:>10.{digits}f}"

    lines = [
        f"{'':44}{'p50 ms':>10}{'p99 ms':>10}",
        row("bare TCP ping-pong", floor["tcp_ms"]),
        row("two bare request/replies (floor)", floor["request_reply_ms"]),
        row("decision -> applied -> ack seen", ours),
        row("  times the floor (targets 1.5 and 2)", result["times_floor"], 2),
        row("  with sync_interval: always", sync),
        "",
        f"{'agents':>10}{'decisions/s':>14}{'server RSS MB':>16}",
    ]
    lines += [f"{w['agents']:>10}{w['per_second']:>14}{w['server_rss_mb']:>16.1f}" for w in result["waves"]]
    lines += [""] + [f"publish, sync {p['sync']:<8}{p['per_second']:>10} decisions/s" for p in result["publish"]]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write JSON there; - is standard output")
    parser.add_argument("--agents", default="100,1000,5000", help="sizes of the waves, separated by commas")
    parser.add_argument("--rounds", type=int, default=2000, help="rounds of each latency measurement")
    parser.add_argument("--serve", choices=("floor", "agent"), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        run(serve(args.serve, args.url))
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else soft, hard))
    agents = [int(part) for part in args.agents.split(",") if part]
    result = run(measure(agents, args.rounds))
    if args.json == "-":
        print(json.dumps(result, indent=2))
        return
    print(table(result))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
