"""Chaos with real servers, seeded and bounded; a checker over the recorded history judges."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bus_schemas.errors import BusError, NotStoredError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumer import Durable, ensure
from bus_schemas.jetstream.consumers import maintain
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.publisher import Publisher, publish
from bus_schemas.streams import DECISIONS
from deploy.nats.embedded import EmbeddedServer
from tests.contract.bus import bench, connected, outgoing, power, until
from tests.contract.chaos.actors import ChaosAgent, ChaosPlanner, all_current
from tests.contract.chaos.cluster import cluster
from tests.contract.chaos.history import History, check
from tests.contract.chaos.proxy import Proxy

NODES = [f"node-{i}" for i in range(4)]


@dataclass
class Run:
    """A run under way."""

    history: History = field(default_factory=History)
    planners: list[ChaosPlanner] = field(default_factory=list)
    deciding: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def stored(self) -> int:
        return sum(planner.stored for planner in self.planners)

    async def more(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until that many more decisions are stored."""
        want = self.stored + count
        await until(lambda: self.stored >= want, f"{count} more decisions", timeout_s)

    async def settle(self, bus: Bus) -> None:
        """Stop deciding, and wait until all that was decided is carried out."""
        for task in self.deciding:
            task.cancel()
        await asyncio.gather(*self.deciding, return_exceptions=True)
        await until(lambda: all_current(bus, NODES), "every node to be current", 60, 0.1)


@asynccontextmanager
async def running(planners: Sequence[Bus], agents: Bus, tender: Bus, seed: int) -> AsyncIterator[Run]:
    """Competing planners, four agents, and the planner's side that looks after streams and consumers."""
    run = Run()
    run.planners = [ChaosPlanner(bus, f"p{i}", NODES, run.history, seed + i) for i, bus in enumerate(planners)]
    run.deciding = [asyncio.create_task(planner.run()) for planner in run.planners]
    others = [asyncio.create_task(ChaosAgent(agents, node, run.history).consumer.run()) for node in NODES]
    others.append(asyncio.create_task(maintain(tender, every_s=0.5)))
    for node in NODES:
        await ensure(tender, Durable.power(tender, node))
    try:
        yield run
    finally:
        for task in (*run.deciding, *others):
            task.cancel()
        ended = await asyncio.gather(*run.deciding, *others, return_exceptions=True)
        wrong = [one for one in ended if isinstance(one, Exception)]
        assert not wrong, f"a loop ended by itself: {wrong!r}"


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_server_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with (
        bench(tmp_path) as (server, bus),
        connected(server.url, "p1") as second,
        connected(server.url, "agents") as field_,
        running([bus, second], field_, bus, seed) as run,
    ):
        for _ in range(3):
            await run.more(40)
            await asyncio.sleep(chance.random() * 0.2)
            await server.kill()
            await asyncio.sleep(chance.random() * 0.5)
            await server.start()
        await run.more(40)
        await run.settle(bus)
        await check(bus, run.history)
        assert len(run.history.acknowledged) >= 160


@pytest.mark.long
async def test_a_cluster_that_loses_its_leader() -> None:
    async with cluster() as three:
        planners = [await three.connect(f"p{i}") for i in range(2)]
        agents, tender = await three.connect("agents"), await three.connect("tender")
        async with running(planners, agents, tender, 3) as run:
            for _ in range(2):
                await run.more(30, 60)
                leader = await three.leader_of(tender, DECISIONS)
                await three.servers[leader].kill()
                await run.more(20, 60)
                await three.servers[leader].start()

                async def healed() -> bool:
                    try:
                        info = await tender.js.stream_info(DECISIONS)
                    except Exception:  # noqa: BLE001  # no leader yet
                        return False
                    peers = (info.cluster.replicas if info.cluster else None) or []
                    return len(peers) == 2 and all(peer.current and not peer.offline for peer in peers)

                await until(healed, "the third server to catch up", 60, 0.2)
            await run.settle(tender)
            await check(tender, run.history)


@pytest.mark.long
async def test_a_leader_stopped_for_longer_than_its_lease_publishes_nothing_when_it_wakes(tmp_path: Path) -> None:
    async with bench(tmp_path) as (server, bus), AsyncExitStack() as stack:
        command = [
            sys.executable,
            str(Path(__file__).with_name("planner_process.py")),
            server.url,
            "sleeper",
            "5",
            *NODES,
        ]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)

        def kill(process: asyncio.subprocess.Process = process) -> None:
            if process.returncode is None:
                process.kill()

        stack.callback(kill)
        assert process.stdout is not None
        history = History()

        async def receive() -> None:
            assert process.stdout is not None
            async for line in process.stdout:
                subject, incarnation, number = json.loads(line)
                history.acknowledged.append((subject, incarnation, number))

        receiving = asyncio.create_task(receive())
        await until(lambda: len(history.acknowledged) > 30, "the sleeper to lead", 30)
        process.send_signal(signal.SIGSTOP)
        # Its own lease is long: whoever sees it end would see the sleeper take the lead, not a busy machine.
        other = ChaosPlanner(bus, "other", NODES, history, 6, ttl_s=60.0)
        leading = asyncio.create_task(other.run())
        await until(lambda: other.stored > 0, "the other to lead")
        await asyncio.sleep(1.0)
        epoch = other.leadership.epoch
        process.send_signal(signal.SIGCONT)
        want = other.stored + 40
        await until(lambda: other.stored >= want, "the other to go on", 40)
        assert other.leadership.epoch == epoch
        assert other.terms == 1
        process.terminate()
        await process.wait()
        await receiving
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await check(bus, history)


@pytest.mark.long
@pytest.mark.parametrize("seed", [11, 12])
async def test_links_that_drop_stall_and_crawl(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with bench(tmp_path) as (server, bus), AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(Proxy(server.url)) for _ in range(3)]
        buses = [
            await stack.enter_async_context(connected(wire.url, f"b{i}", request_timeout_s=1.0))
            for i, wire in enumerate(wires)
        ]
        async with running(buses[:2], buses[2], bus, seed) as run:
            for _ in range(6):
                await run.more(15)
                wire = chance.choice(wires)
                match chance.choice(["cut", "slow", "hole"]):
                    case "cut":
                        wire.cut()
                    case "slow":
                        wire.slow_s = 0.05
                        await asyncio.sleep(0.5)
                    case "hole":
                        wire.black_hole = True
                        await asyncio.sleep(chance.uniform(0.2, 2.5))
                        wire.cut()
                wire.slow_s, wire.black_hole = 0.0, False
            await run.more(15)
            await run.settle(bus)
            await check(bus, run.history)


@pytest.mark.parametrize("seed", [21, 22, 23])
async def test_duplicates_and_late_ones_are_carried_out_once(seed: int) -> None:
    """Old decisions come again under new message ids, out of order, as a stream restored from elsewhere might hold."""
    chance = random.Random(seed)
    async with bench() as (_, bus):
        history = History()
        agent = ChaosAgent(bus, "node-0", history, ack_wait_s=0.3, work_s=0.0)
        await ensure(bus, Durable(DECISIONS, "power-node-0", bus.subjects.decision_power("node-0"), ack_wait_s=0.3))
        running_ = asyncio.create_task(agent.consumer.run())
        sent = 0
        for number in range(30):
            again = [number] + [chance.randint(0, number) for _ in range(chance.randint(0, 3))]
            for one in again:
                await publish(bus, bus.subjects.decision_power("node-0"), power("node-0", one), f"m{sent}")
                sent += 1
        await until(lambda: history.carried["node-0"][-1:] == [("one", 29)], "the last")
        assert history.carried["node-0"] == [("one", number) for number in range(30)]
        agent.consumer.stop()
        await running_


async def test_a_full_store_refuses_and_recovers_without_losing_what_it_took(tmp_path: Path) -> None:
    small = {
        "jetstream": {"store_dir": str(tmp_path), "max_file_store": 400_000, "limits": {"default_max_consumers": 20000}}
    }
    acknowledged = 0
    async with EmbeddedServer(tmp_path, settings=small) as server, connected(server.url) as bus:
        await ask_small(bus)
        leadership = Leadership(bus, "p", 10)
        await leadership.acquire()
        publisher = Publisher(bus, leadership)
        refusal = ""
        while not refusal and acknowledged < 5000:
            try:
                await publisher.publish_batch([outgoing(bus, power("node-0", acknowledged))])
                acknowledged += 1
            except (NotStoredError, BusError) as error:
                refusal = str(error)
        assert refusal
        assert "\n" not in refusal
        assert acknowledged > 20
    async with EmbeddedServer(tmp_path) as server, connected(server.url) as bus:
        leadership = Leadership(bus, "p2", 30)
        await asyncio.wait_for(leadership.acquire(), 60)
        found = await bus.js.stream_info(DECISIONS)
        history = History()
        history.acknowledged = [
            (bus.subjects.decision_power("node-0"), "one", n) for n in range(max(0, acknowledged - 1024), acknowledged)
        ]
        assert found.state.messages >= min(acknowledged, 1024)
        await Publisher(bus, leadership).publish_batch(
            [outgoing(bus, power("node-0", acknowledged, epoch=leadership.epoch or 0))]
        )
        await check(bus, history)


async def ask_small(bus: Bus) -> None:
    """The streams, without the reservations that a small store cannot make."""
    for spec in stream_admin.wanted(bus):
        await bus.js.add_stream(stream_admin.stream_config(spec), max_bytes=-1)
