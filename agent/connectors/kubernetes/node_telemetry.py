"""Who holds the GPUs of each node, by the telemetry of the agents, as it comes. Nothing is read from the stream."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from agent.core.scaling.kubernetes.gpu_release import SILENT_S, GpuHolder, GpuHolders
from bus_schemas.flood_gate import FloodGate
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import stored
from bus_schemas.v1 import NodeTelemetry

log = logging.getLogger(__name__)
CHECK_S = 5.0
MOST_NODES = 20_000


class NodeTelemetryWatch:
    """The newest report of each node; ``run`` it. Times are of the monotonic clock."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._gate = FloodGate()
        self._client: Client | None = None
        self._wanted: dict[str, set[Callable[[], None]]] = {}
        self._started_s = time.monotonic()
        self.nodes: dict[str, GpuHolders] = {}

    @property
    def age_s(self) -> float:
        """Seconds since this watch began."""
        return time.monotonic() - self._started_s

    def want(self, nodes: Iterable[str], wake: Callable[[], None]) -> None:
        """Call ``wake`` once at the next report of any of these nodes."""
        if len(self._wanted) >= MOST_NODES:
            # Of nodes that never came back. Who still waits asks again at its next look.
            self._wanted.clear()
        for node in nodes:
            self._wanted.setdefault(node, set()).add(wake)

    async def run(self) -> None:
        """Receive until cancelled, also after the client was replaced by a new one."""
        while True:
            if self._client is not self._bus.nc and self._bus.connected:
                with suppress(NatsError, OSError):
                    await self._subscribe(self._bus.nc)
            self._forget(time.monotonic() - SILENT_S)
            await asyncio.sleep(CHECK_S)

    def _forget(self, before_s: float) -> None:
        """Drop nodes whose newest report is older: they would take the place of new ones."""
        self.nodes = {name: one for name, one in self.nodes.items() if one.received_s >= before_s}

    async def _subscribe(self, client: Client) -> None:
        subject = self._bus.subjects.stored(self._bus.subjects.all_of("telemetry", "node").replace(">", "*"))
        await client.subscribe(subject, cb=self._take)
        self._client = client

    async def _take(self, raw: Msg) -> None:
        if not self._gate.admits(raw.subject, time.monotonic()):
            return
        found = stored(raw)
        if found is None or not isinstance(found.message, NodeTelemetry):
            return
        message = found.message
        if message.node not in self.nodes and len(self.nodes) >= MOST_NODES:
            return
        holders = tuple(GpuHolder(gpu.pod, gpu.deployment, gpu.pool) for gpu in message.gpus if gpu.pod)
        self.nodes[message.node] = GpuHolders(holders, time.monotonic())
        for wake in self._wanted.pop(message.node, ()):
            wake()
