"""The parts of a run, each started and stopped as one: server, cluster, planners, agents, connector."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nats.errors import ConnectionClosedError

from agent.ports import GpuDriver, GpuOwners
from agent.runtime.service import PowerAgentService
from agent.runtime.settings import PowerAgentSettings
from bus_schemas.client import VirtualConnectorClient
from bus_schemas.errors import BusError
from bus_schemas.jetstream import consumers, stream_admin
from bus_schemas.jetstream.connect import Bus, BusUnreachableError, connect
from bus_schemas.jetstream.consumers import Durable
from bus_schemas.jetstream.settings import BusSettings
from deploy.cli.bus_address import servers_of
from deploy.cli.bus_connection import what_is_missing
from deploy.cli.errors import BusProblemError, UsageError
from deploy.compose.planner_service import Planner
from deploy.demo.connector import Connector
from deploy.demo.gpus import HardwareMeter, PlantDriver, PlantOwners, PlantWorkers
from deploy.demo.prepare import MODEL, ROLES, Prepared
from deploy.nats.binary import ServerMissingError
from deploy.nats.embedded import EmbeddedServer, ServerDownError
from planner.runtime.config.settings import LeaseSettings, MetricsSettings
from planner.sim.cluster.plant import Plant
from planner.sim.evaluation.records import RequestCounts
from planner.sim.live_cluster import LiveCluster

WATCH_SERVER_S = 0.1
RESTART_S = 1.0
LEASE_TTL_S = 3.0


@asynccontextmanager
async def bus_server(run: Prepared, removals: list[Callable[[], None]]) -> AsyncIterator[EmbeddedServer | None]:
    """The embedded server; None if the run uses another one. Raises UsageError in one line.

    ``removals``: receives what removes the server and its data where the run is ended by force.
    """
    options = run.options
    if options.nats_url:
        yield None
        return
    async with AsyncExitStack() as stack:
        data = options.data_dir or Path(stack.enter_context(TemporaryDirectory(prefix="wattscale-data-")))
        made = EmbeddedServer(data, options.nats_port)
        removals.append(made.destroy)
        if options.data_dir is None:
            removals.append(lambda: shutil.rmtree(data, ignore_errors=True))
        try:
            server = await stack.enter_async_context(made)
        except (ServerDownError, ServerMissingError) as error:
            raise UsageError(str(error)) from error
        except OSError as error:
            raise UsageError(f"--data-dir {data}: {error.strerror or error}") from error
        yield server


async def reach(run: Prepared, url: str, name: str) -> Bus:
    """Connect one part to the bus. Raises BusProblemError in one line."""
    try:
        return await connect(BusSettings(servers=servers_of(url), name=name))
    except BusUnreachableError as error:
        raise BusProblemError(str(error)) from error


async def furnish(bus: Bus, run: Prepared) -> None:
    """Create the streams, and the consumers of agents and connector, which they may not create. Idempotent.

    Raises BusProblemError in one line.
    """
    try:
        await stream_admin.apply(bus)
        await consumers.ensure_all(bus, _durables(bus, run))
    except BusError as error:
        raise BusProblemError(await what_is_missing(bus) or str(error)) from error


def keep_furnished(bus: Bus, run: Prepared) -> list[Coroutine[Any, Any, None]]:
    """Restore streams and consumers that the server kept in memory and lost; each coroutine runs until cancelled."""
    durables = _durables(bus, run)
    return [stream_admin.keep(bus), consumers.keep(bus, lambda: durables)]


def _durables(bus: Bus, run: Prepared) -> list[Durable]:
    scaling = [Durable.scaling(bus, run.options.deployment)] if run.options.real_workers else []
    return [*scaling, *(Durable.power(bus, node) for node in run.nodes)]


async def keep_server(server: EmbeddedServer, report: Callable[[str], None]) -> None:
    """Restart the server on its port and data whenever it dies. Runs until cancelled."""
    while True:
        await asyncio.sleep(WATCH_SERVER_S)
        if server.pid or server.destroyed:
            continue
        report("nats-server ended unexpectedly; restarting it on the same data")
        try:
            await server.start()
        except (ServerDownError, OSError) as error:
            report(f"{error}; trying again")
            await asyncio.sleep(RESTART_S)


def make_cluster(run: Prepared) -> tuple[LiveCluster, HardwareMeter]:
    """The simulated cluster, every GPU parked at its lowest limit, as a site would be handed over."""
    spec = run.plant
    plant = Plant(spec, RequestCounts(run.options.ttft_ms, run.options.itl_ms))
    for uuid in plant.gpus:
        plant.set_cap(uuid, spec.cluster.card.min_mw)
    cluster = LiveCluster(plant, run.requests, speed=run.options.speed, model=MODEL, namespace=run.options.deployment)
    return cluster, HardwareMeter({reading.gpu: reading.enforced_mw for reading in cluster.readings()})


def make_planner(run: Prepared, bus: Bus, cluster: LiveCluster, holder: str) -> Planner:
    """One planner that scrapes the cluster's page."""
    return planner_on(run, bus, MetricsSettings(source="simulated", urls=(cluster.url,)), holder)


def planner_on(run: Prepared, bus: Bus, metrics: MetricsSettings, holder: str) -> Planner:
    """One planner that reads these metrics. Its own health and metrics pages are on a free port."""
    settings, name = run.settings, run.options.deployment
    block = settings.deployments[name].model_copy(update={"metrics": metrics})
    settings = settings.model_copy(
        update={
            "deployments": {name: block},
            "lease": LeaseSettings(holder=holder, ttl_s=LEASE_TTL_S),
        }
    )
    return Planner(settings, run.planner, bus)


def make_agent(run: Prepared, bus: Bus, cluster: LiveCluster, meter: HardwareMeter, node: str) -> PowerAgentService:
    """The power agent of one node of the simulated cluster."""
    return agent_on(bus, node, *node_gpus(run, cluster, meter, node))


def node_gpus(run: Prepared, cluster: LiveCluster, meter: HardwareMeter, node: str) -> tuple[PlantDriver, PlantOwners]:
    """The GPUs of one node of the simulated cluster, and whose work runs on them."""
    roles = {name: role.value for name, role in ROLES.items()}
    driver = PlantDriver(cluster, meter, node, run.plant.cluster)
    return driver, PlantOwners(cluster, node, run.options.deployment, roles)


def agent_on(bus: Bus, node: str, driver: GpuDriver, owners: GpuOwners) -> PowerAgentService:
    """The power agent of one node with these GPUs."""
    return PowerAgentService(PowerAgentSettings(node=node, telemetry_interval_s=0.5), bus, driver, owners)


def make_connector(run: Prepared, bus: Bus, cluster: LiveCluster) -> Connector:
    """The consumer of the deployment's scaling decisions."""
    client = VirtualConnectorClient(bus.nc, run.options.deployment, name="simulated-cluster")
    return Connector(client, PlantWorkers(cluster))


async def keep_connector(run: Prepared, bus: Bus, cluster: LiveCluster) -> None:
    """Run a connector, again on each new connection after one was closed for good. Runs until cancelled."""
    while True:
        await bus.ready()
        try:
            await make_connector(run, bus, cluster).run()
        except (BusUnreachableError, ConnectionClosedError):
            continue
