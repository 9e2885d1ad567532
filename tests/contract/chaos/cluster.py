"""Three real servers as one cluster on this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bus_schemas.errors import BusError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.api import ask
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.settings import BusSettings
from deploy.nats.cluster import clustered
from deploy.nats.embedded import EmbeddedServer
from tests.contract.bus import until
from tests.free_ports import free_port


class Cluster:
    """Servers by name, and connections that know all of them."""

    def __init__(self, servers: dict[str, EmbeddedServer], stack: AsyncExitStack) -> None:
        self.servers = servers
        self._stack = stack

    async def connect(self, name: str = "test", request_timeout_s: float = 2.0) -> Bus:
        urls = tuple(server.url for server in self.servers.values())
        settings = BusSettings(
            servers=urls, name=name, request_timeout_s=request_timeout_s, replicas=3, connect_timeout_s=20
        )
        bus = await connect(settings)
        self._stack.push_async_callback(bus.close)
        return bus

    async def leader_of(self, bus: Bus, stream: str) -> str:
        reply = json.loads((await ask(bus, f"$JS.API.STREAM.INFO.{stream}")).data)
        return str(reply.get("cluster", {}).get("leader") or "")


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    """Three servers, the streams on all of them."""
    ports = [free_port() for _ in range(3)]
    routes = [f"nats://127.0.0.1:{port}" for port in ports]
    async with AsyncExitStack() as stack:
        servers = {
            f"n{i}": EmbeddedServer(
                name=f"n{i}", settings=clustered({}, f"127.0.0.1:{port}", routes), start_timeout_s=60.0
            )
            for i, port in enumerate(ports)
        }
        # Healthy means: in a cluster with a leader. None of them is before two are up.
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers.values()))
        made = Cluster(servers, stack)
        bus = await made.connect("provision")

        async def provisioned() -> bool:
            try:
                await stream_admin.apply(bus)
                return await stream_admin.plan(bus) == []
            except BusError:
                return False

        await until(provisioned, "the streams on three servers", 60)
        yield made
