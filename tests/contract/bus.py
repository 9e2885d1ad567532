"""A real server with streams, and small values to send over it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, overload

from bus_schemas import v1
from bus_schemas.errors import BusAwayError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.publisher import Outgoing
from bus_schemas.jetstream.settings import BusSettings
from deploy.nats.embedded import EmbeddedServer

T = TypeVar("T")
WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@overload
async def until(read: Callable[[], Awaitable[T]], what: str, timeout_s: float = 60.0, every_s: float = 0.02) -> T: ...
@overload
async def until(read: Callable[[], T], what: str, timeout_s: float = 60.0, every_s: float = 0.02) -> T: ...
async def until(read: Callable[[], Any], what: str, timeout_s: float = 60.0, every_s: float = 0.02) -> Any:
    """The first true value that `read` returns. AssertionError naming `what` when there is none in time.

    A bus that is away for a moment, as on a busy machine, has no value yet.
    """
    deadline, away = time.monotonic() + timeout_s, ""
    while True:
        try:
            found = read()
            value = await found if isinstance(found, Awaitable) else found
        except BusAwayError as error:
            value, away = None, f"; {error}"
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}{away}"
        await asyncio.sleep(every_s)


@asynccontextmanager
async def connected(url: str, name: str = "test", **settings: Any) -> AsyncIterator[Bus]:
    """A connection, closed afterwards. Short time-outs: tests lose servers on purpose."""
    settings.setdefault("request_timeout_s", 2.0)
    bus = await connect(BusSettings(servers=(url,), name=name, **settings))
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def bench(data_dir: Path | None = None, **options: Any) -> AsyncIterator[tuple[EmbeddedServer, Bus]]:
    """A server with the streams, and a connection to it."""
    async with EmbeddedServer(data_dir, **options) as server, connected(server.url) as bus:
        await until(lambda: _provisioned(bus), "the streams", 60, 0.2)
        yield server, bus


async def _provisioned(bus: Bus) -> bool:
    """Make the streams: a busy machine may need longer for one of them than a request may take."""
    await stream_admin.apply(bus)
    return True


@asynccontextmanager
async def leading(bus: Bus, holder: str = "planner", ttl_s: float = 5.0) -> AsyncIterator[Leadership]:
    """The lead, renewed inside."""
    leadership = Leadership(bus, holder, ttl_s)
    async with leadership.lead():
        yield leadership


def power(
    node: str, number: int, *, epoch: int = 1, incarnation: str = "one", watts: float = 300.0
) -> v1.PowerDecision:
    """A power decision for one GPU."""
    cap = v1.GpuCap(gpu=f"GPU-{node}", cap_watts=watts, fallback_watts=200.0)
    return v1.PowerDecision(
        time=datetime.now(UTC),
        node=node,
        decision_id=number,
        incarnation=incarnation,
        epoch=epoch,
        valid_for_s=30.0,
        caps=(cap,),
    )


def scaling(
    deployment: str, number: int, *, epoch: int = 1, incarnation: str = "one", decode: int = 2
) -> v1.ScalingDecision:
    """A scaling decision for two pools."""
    return v1.ScalingDecision(
        time=datetime.now(UTC),
        deployment=deployment,
        decision_id=number,
        incarnation=incarnation,
        epoch=epoch,
        num_prefill_workers=1,
        num_decode_workers=decode,
        pools={
            "prefill": v1.PoolTarget(role="prefill", replicas=1),
            "decode": v1.PoolTarget(role="decode", replicas=decode),
        },
    )


def applied(decision: v1.PowerDecision) -> v1.PowerAck:
    """The answer to one that was carried out."""
    return v1.PowerAck(
        time=datetime.now(UTC),
        node=decision.node,
        decision_id=decision.decision_id,
        applied_decision_id=decision.decision_id,
        incarnation=decision.incarnation,
        epoch=decision.epoch,
        status=v1.AckStatus.APPLIED,
        gpus=tuple(
            v1.GpuInForce(gpu=c.gpu, requested_watts=c.cap_watts, enforced_watts=c.cap_watts) for c in decision.caps
        ),
    )


def outgoing(bus: Bus, decision: v1.PowerDecision | v1.ScalingDecision) -> Outgoing:
    """A decision on its way, with the id that stays the same on retries."""
    if isinstance(decision, v1.PowerDecision):
        subject, who = bus.subjects.decision_power(decision.node), decision.node
    else:
        subject, who = bus.subjects.decision_scaling(decision.deployment), decision.deployment
    return Outgoing(subject, decision, f"{who}-{decision.incarnation}-{decision.epoch}-{decision.decision_id}")
