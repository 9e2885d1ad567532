"""Durable consumers as they shall be: created by the planner's side, for agents may not create any.

Always with the full configuration, so that one that was lost comes back the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bus_schemas.errors import NotStoredError
from bus_schemas.jetstream.api import answer, ask, error_of
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.periodic import run_periodically
from bus_schemas.streams import DECISIONS
from bus_schemas.subjects import power_consumer, scaling_consumer

ACK_WAIT_S = 5.0
"""How long a message that a dead process held stays held: well within a lease, or the process that comes after it would
hear of no renewal in time. Work that takes longer says that it goes on."""
KEEP_EVERY_S = 5.0
AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Durable:
    """A consumer of one subject, one message at a time, beginning with the newest."""

    stream: str
    name: str
    subject: str
    ack_wait_s: float = ACK_WAIT_S

    @classmethod
    def power(cls, bus: Bus, node: str) -> Durable:
        """Through which a node's agent takes its power decisions."""
        return cls(DECISIONS, power_consumer(node), bus.subjects.decision_power(node))

    @classmethod
    def scaling(cls, bus: Bus, deployment: str) -> Durable:
        """Through which a deployment's actuator takes its scaling decisions."""
        return cls(DECISIONS, scaling_consumer(deployment), bus.subjects.decision_scaling(deployment))

    def config(self) -> dict[str, Any]:
        """In the server's own words."""
        return {
            "durable_name": self.name,
            "filter_subject": self.subject,
            "deliver_policy": "last_per_subject",
            "ack_policy": "explicit",
            "ack_wait": int(self.ack_wait_s * 1e9),
            "max_deliver": -1,
            "max_ack_pending": 1,
            "max_waiting": 16,
            # Its position may be lost: decisions are states, and the newest is delivered again.
            "mem_storage": True,
        }


async def ensure(bus: Bus, durable: Durable) -> None:
    """Create it, or leave it as it is. Raises BusAwayError, NotPermittedError, NotStoredError."""
    api = f"$JS.API.CONSUMER.CREATE.{durable.stream}.{durable.name}.{durable.subject}"
    body = json.dumps({"stream_name": durable.stream, "config": durable.config(), "action": ""}).encode()
    problem = error_of(answer(await ask(bus, api, body)))
    if problem is not None:
        raise NotStoredError(f"consumer {durable.name}: {problem.text}", problem.code)


async def keep(bus: Bus, wanted: Callable[[], Iterable[Durable]], every_s: float = KEEP_EVERY_S) -> None:
    """See to it that all of ``wanted`` exist, until cancelled: at once, after each reconnect and now and then.

    One server's worth of agents (5,000) costs a few seconds of idle requests a round, so rounds ask the server for
    the names that exist and create what is missing.
    """

    async def work() -> None:
        await ensure_all(bus, wanted())

    await run_periodically(bus, "consumers", work, every_s)


async def ensure_all(bus: Bus, wanted: Iterable[Durable]) -> int:
    """Create those that do not exist; how many. Raises BusAwayError, NotPermittedError, NotStoredError."""
    by_stream: dict[str, list[Durable]] = {}
    for durable in wanted:
        by_stream.setdefault(durable.stream, []).append(durable)
    made = 0
    for stream, durables in by_stream.items():
        there = await _names(bus, stream)
        missing = [durable for durable in durables if durable.name not in there]
        for start in range(0, len(missing), AT_ONCE):
            await asyncio.gather(*(ensure(bus, durable) for durable in missing[start : start + AT_ONCE]))
        made += len(missing)
    return made


async def _names(bus: Bus, stream: str) -> set[str]:
    found: set[str] = set()
    while True:
        body = json.dumps({"offset": len(found)}).encode()
        value = answer(await ask(bus, f"$JS.API.CONSUMER.NAMES.{stream}", body))
        problem = error_of(value)
        if problem is not None:
            raise NotStoredError(f"consumers of {stream}: {problem.text}", problem.code)
        page = value.get("consumers") or []
        found.update(page)
        if not page or len(found) >= int(value.get("total", 0)):
            return found
