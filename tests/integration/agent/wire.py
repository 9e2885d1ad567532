"""The planner's side of the bus, as small as tests need it: streams, a consumer per node, decisions, answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar

from agent.core.caps import GpuTarget
from bus_schemas.jetstream import connect as connecting
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import Durable, ensure
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.units import GpuSetpoint, Milliwatts
from bus_schemas.v1 import GpuCap, NodeTelemetry, PowerAck, PowerDecision

T = TypeVar("T")


def target(gpu: str, cap_mw: int, fallback_mw: int) -> GpuTarget:
    """One GPU of a decision."""
    return GpuTarget(gpu, GpuSetpoint(Milliwatts(cap_mw)), fallback_mw)


@asynccontextmanager
async def connected(url: str, name: str = "test") -> AsyncIterator[Bus]:
    """A connection, closed afterwards."""
    bus = await connecting.connect(BusSettings(servers=(url,), name=name))
    try:
        yield bus
    finally:
        await bus.close()


class PlannerSide:
    """Publishes decisions for one node and reads its answers."""

    def __init__(self, bus: Bus, node: str) -> None:
        self.bus = bus
        self.node = node
        self._ids = itertools.count()

    async def prepare(self) -> None:
        """Streams and the node's consumer."""
        await stream_admin.apply(self.bus)
        await ensure(self.bus, Durable.power(self.bus, self.node))

    async def decide(
        self,
        caps_watts: Mapping[str, float],
        *,
        epoch: int = 1,
        valid_for_s: float = 30.0,
        fallback_watts: float = 200.0,
        decision_id: int | None = None,
        heard: PowerAck | NodeTelemetry | None = None,
        incarnation: str = "one",
        traceparent: str | None = None,
    ) -> int:
        """Publish; the decision's id."""
        number = next(self._ids) if decision_id is None else decision_id
        message = PowerDecision(
            time=datetime.now(UTC),
            node=self.node,
            decision_id=number,
            incarnation=incarnation,
            epoch=epoch,
            valid_for_s=valid_for_s,
            caps=tuple(
                GpuCap(gpu=gpu, cap_watts=cap, fallback_watts=fallback_watts) for gpu, cap in caps_watts.items()
            ),
            heard_boot=heard.boot if heard else "",
            heard_clock_s=heard.clock_s if heard else None,
        )
        subject = self.bus.subjects.decision_power(self.node)
        await publish(self.bus, subject, message, f"{self.node}-{incarnation}-{epoch}-{number}", traceparent)
        return number

    async def answer(self) -> PowerAck | None:
        """The newest answer."""
        stored = await last(self.bus, self.bus.subjects.ack_power(self.node))
        return stored.message if stored is not None and isinstance(stored.message, PowerAck) else None

    async def telemetry(self) -> NodeTelemetry | None:
        """The newest telemetry."""
        stored = await last(self.bus, self.bus.subjects.telemetry_node(self.node))
        return stored.message if stored is not None and isinstance(stored.message, NodeTelemetry) else None

    async def answered(self, accept: Callable[[PowerAck], bool], timeout_s: float = 60.0) -> PowerAck:
        """The first newest answer that ``accept`` takes."""
        seen: PowerAck | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    seen = await self.answer()
                    if seen is not None and accept(seen):
                        return seen
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"no such answer within {timeout_s} s; the last was {seen}") from None

    async def telemetry_where(self, accept: Callable[[NodeTelemetry], bool], timeout_s: float = 60.0) -> NodeTelemetry:
        """The first newest telemetry that ``accept`` takes."""
        seen: NodeTelemetry | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    seen = await self.telemetry()
                    if seen is not None and accept(seen):
                        return seen
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"no such telemetry within {timeout_s} s; the last was {seen}") from None
