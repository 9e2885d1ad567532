"""The parts of `wattscale up` go on by themselves: a server that comes back empty, or not at the first try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.errors import Error as NatsError

from bus_schemas.client import VirtualConnectorClient
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import Durable
from bus_schemas.jetstream.publisher import publish
from bus_schemas.streams import DECISIONS, TELEMETRY
from deploy.demo import parts
from deploy.demo.connector import Connector
from deploy.demo.options import UpOptions
from deploy.demo.parts import furnish, keep_connector, keep_furnished, keep_server
from deploy.demo.prepare import Prepared
from deploy.nats.embedded import EmbeddedServer, ServerDownError
from tests.contract.bus import bench, connected, until
from tests.unit.deploy.demo.test_connector import ScriptedCluster, decision

NODES = ("node-0", "node-1")


@asynccontextmanager
async def beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``work`` beside the body; none of it may end."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
        assert not [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_an_outside_server_lost_with_its_memory_is_put_back() -> None:
    prepared = cast("Prepared", SimpleNamespace(nodes=NODES, options=UpOptions()))
    async with EmbeddedServer() as server, connected(server.url) as bus:
        await furnish(bus, prepared)
        async with beside(*keep_furnished(bus, prepared)):
            await server.kill()
            await server.start()

            async def whole() -> bool:
                try:
                    streams = {stream.config.name for stream in await bus.js.streams_info()}
                    consumers = {consumer.name for consumer in await bus.js.consumers_info(DECISIONS)}
                except NatsError:
                    return False  # Not there again.
                return TELEMETRY in streams and consumers == {Durable.power(bus, node).name for node in NODES}

            await until(lambda: bus.connected, "the connection")
            await until(whole, "the streams and the consumers")


async def test_a_server_that_does_not_come_back_at_once_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "RESTART_S", 0.01)
    said: list[str] = []
    async with EmbeddedServer() as server:
        start, tries = server.start, iter([ServerDownError("no memory"), OSError("no file is left"), None, None])

        async def failing() -> None:
            if (error := next(tries)) is not None:
                raise error
            await start()

        monkeypatch.setattr(server, "start", failing)
        async with beside(keep_server(server, said.append)):
            await server.kill()
            await until(lambda: server.pid, "the server")
            async with connected(server.url) as bus:
                assert bus.connected
    assert [text for text in said if text.endswith("trying again")] == [
        "no memory; trying again",
        "no file is left; trying again",
    ]


async def test_the_connector_outlives_a_connection_that_is_closed_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = ScriptedCluster(free=2, decode=1)

    def make(_run: object, bus: Bus, _cluster: object) -> Connector:
        return Connector(VirtualConnectorClient(bus.nc, "d"), cluster)

    monkeypatch.setattr(parts, "make_connector", make)
    nothing = cast("Any", None)
    async with (
        bench() as (server, planner),
        connected(server.url) as bus,
        beside(keep_connector(nothing, bus, nothing)),
    ):
        for count in (2, 3):
            wanted = decision(decode=count).model_copy(update={"decision_id": count})
            await publish(planner, planner.subjects.decision_scaling("d"), wanted, f"d{count}")
            await until(lambda want=count: cluster.counts["decode"] == want, "the workers")  # type: ignore[misc]
            await bus.nc.close()
