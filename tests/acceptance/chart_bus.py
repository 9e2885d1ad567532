"""The bus of the chart on this machine: the rendered configuration but for addresses, folders and TLS files."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.settings import BusSettings
from deploy.cli.errors import BusProblemError
from deploy.demo.options import UpOptions
from deploy.demo.parts import furnish, keep_connector, keep_furnished, make_agent, make_cluster, make_planner
from deploy.demo.prepare import prepare
from deploy.nats.embedded import EmbeddedServer
from tests.acceptance.test_budget_storm import Ledger, Storm, StormPart
from tests.contract.bus import until
from tests.free_ports import free_port
from tests.integration.chart.rendered import rendered

ADDRESSES = ("listen", "http", "server_name")
MEMORY_BYTES = 2 * 1024**3


def server_settings(case: str, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """The rendered settings of a server; addresses and its name are left to the caller."""
    lines = rendered(case, extra=extra).one("ConfigMap", "-nats")["data"]["nats.conf"].splitlines()
    named = (line.partition(": ") for line in lines)
    return {name: json.loads(value) for name, _, value in named if name not in ADDRESSES}


@contextmanager
def quiet_disk(folder: Path) -> Iterator[Path]:
    """A folder in memory, where there is enough; else ``folder``.

    The chart's servers sync every write. Beside tests that build and delete images a disk may stall for longer than an
    election waits, and a server that is killed leaves its files in memory as well as on a disk.
    """
    memory = Path("/dev/shm")  # a folder of our own in it
    if not memory.is_dir() or shutil.disk_usage(memory).free < MEMORY_BYTES:
        yield folder
        return
    with TemporaryDirectory(prefix="wattscale-", dir=memory) as made:
        yield Path(made)


@asynccontextmanager
async def chart_servers(folder: Path, settings: dict[str, Any]) -> AsyncIterator[list[EmbeddedServer]]:
    """As many servers as the chart's routes name, else one."""
    with quiet_disk(folder) as stores:
        async with _servers(stores, settings) as servers:
            yield servers


@asynccontextmanager
async def _servers(folder: Path, settings: dict[str, Any]) -> AsyncIterator[list[EmbeddedServer]]:
    count = len(settings.get("cluster", {}).get("routes", [0]))
    ports = [free_port() for _ in range(count)]
    made = []
    for index, port in enumerate(ports):
        store = folder / f"store-{index}"
        own = {**settings, "jetstream": {**settings["jetstream"], "store_dir": str(store)}}
        if count > 1:
            routes = [f"nats://127.0.0.1:{one}" for one in ports]
            own["cluster"] = {**settings["cluster"], "listen": f"127.0.0.1:{port}", "routes": routes}
        made.append(EmbeddedServer(store, name=f"w-nats-{index}", settings=own, start_timeout_s=60))
    async with AsyncExitStack() as stack:
        # Healthy means: in a cluster with a leader. None of them is before two are up.
        await asyncio.gather(*(stack.enter_async_context(server) for server in made))
        yield made


@dataclass(frozen=True)
class ChartSite:
    """The parts of `wattscale up` on a bus: ``bus`` is a connection of the test's own."""

    bus: Bus
    ledger: Ledger
    nodes: tuple[str, ...]
    parts: dict[str, StormPart]


@asynccontextmanager
async def site_on(options: UpOptions, bus_settings: BusSettings) -> AsyncIterator[ChartSite]:
    """A connector, an agent for each node and two planners, each with a connection of its own."""
    assert options.budget_watts is not None
    ledger, run = Ledger(budgets=[(0.0, options.budget_watts)]), prepare(options)
    async with AsyncExitStack() as stack:

        async def connected(name: str) -> Bus:
            bus = await connect(bus_settings.model_copy(update={"name": name}))
            stack.push_async_callback(bus.close)
            return bus

        bus = await connected("test")

        async def provisioned() -> bool:
            # A cluster's servers are healthy a moment before all of them may hold a stream.
            try:
                await furnish(bus, run)
            except BusProblemError:
                return False
            return True

        await until(provisioned, "the streams", 60, 0.2)
        cluster, meter = make_cluster(run)
        meter.on_write = ledger.wrote
        ledger.wrote(meter.sum_mw)
        await stack.enter_async_context(cluster)
        storm, parts = Storm(stack, connected), {}
        parts["connector"] = await storm.start("connector", lambda bus: keep_connector(run, bus, cluster))

        async def furnished(bus: Bus) -> None:
            await asyncio.gather(*keep_furnished(bus, run))

        # A single server keeps telemetry in memory, and loses it with its process.
        parts["streams"] = await storm.start("streams", furnished)

        async def agent(node: str) -> StormPart:
            return await storm.start(node, lambda bus: make_agent(run, bus, cluster, meter, node).run())

        async def planner(name: str) -> StormPart:
            return await storm.start(name, lambda bus: make_planner(run, bus, cluster, name).run())

        for node in run.nodes:
            parts[node] = await agent(node)
        for name in ("planner-0", "planner-1"):
            parts[name] = await planner(name)
        yield ChartSite(bus, ledger, run.nodes, parts)
