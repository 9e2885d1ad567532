"""Creates the durable consumers of agents and connectors, on the planner's side: agents may not create consumers.

Always with the full configuration, so that a consumer that was lost comes back the same. Any number of planners may do
this at once: every call is idempotent.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from bus_schemas.errors import NotStoredError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.api import answer, ask, error_of, package_errors
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import subjects_of
from bus_schemas.jetstream.tasks.periodic import run_periodically
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.streams import DECISIONS
from bus_schemas.subjects import power_consumer, scaling_consumer

ACK_WAIT_S = 5.0
"""How long the server waits for the acknowledgement of a delivered message before it delivers it again. Well within a
power lease: a process that replaces a dead one must get the renewal in time. Longer work reports progress."""
KEEP_EVERY_S = 5.0
AT_ONCE = 64
"""Consumers created concurrently."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Durable:
    """A consumer of one subject that delivers one message at a time, beginning with the newest."""

    stream: str
    name: str
    subject: str
    ack_wait_s: float = ACK_WAIT_S

    @classmethod
    def power(cls, bus: Bus, node: str) -> Durable:
        """The consumer through which a node's agent receives its power decisions."""
        return cls(DECISIONS, power_consumer(node), bus.subjects.decision_power(node))

    @classmethod
    def scaling(cls, bus: Bus, deployment: str) -> Durable:
        """The consumer through which a deployment's actuator receives its scaling decisions."""
        return cls(DECISIONS, scaling_consumer(deployment), bus.subjects.decision_scaling(deployment))

    def config(self) -> ConsumerConfig:
        """The consumer's full configuration."""
        return ConsumerConfig(
            name=self.name,
            durable_name=self.name,
            filter_subject=self.subject,
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self.ack_wait_s,
            max_deliver=-1,
            max_ack_pending=1,
            max_waiting=16,
            # The consumer's position may be lost: decisions are states, and the newest is delivered again.
            mem_storage=True,
        )


async def ensure(bus: Bus, durable: Durable) -> None:
    """Create the consumer; no change where it exists. Raises BusAwayError, NotPermittedError, NotStoredError."""
    request = f"$JS.API.CONSUMER.CREATE.{durable.stream}.{durable.name}.{durable.subject}"
    try:
        with package_errors(bus, request):
            await bus.js.add_consumer(durable.stream, durable.config())
    except APIError as error:
        raise NotStoredError(f"consumer {durable.name}: {error.description}", error.err_code or 0) from error


async def ensure_all(bus: Bus, durables: Iterable[Durable]) -> int:
    """Create the consumers that do not exist. Returns how many it created.

    Raises BusAwayError, NotPermittedError, NotStoredError.
    """
    by_stream: dict[str, list[Durable]] = {}
    for durable in durables:
        by_stream.setdefault(durable.stream, []).append(durable)
    created = 0
    for stream, wanted in by_stream.items():
        existing = await _names(bus, stream)
        missing = [durable for durable in wanted if durable.name not in existing]
        for start in range(0, len(missing), AT_ONCE):
            await asyncio.gather(*(ensure(bus, durable) for durable in missing[start : start + AT_ONCE]))
        created += len(missing)
    return created


async def keep(bus: Bus, durables: Callable[[], Iterable[Durable]], every_s: float = KEEP_EVERY_S) -> None:
    """Create the missing ones of ``durables``: at once, after each reconnect and periodically, until cancelled."""

    async def found() -> Iterable[Durable]:
        return durables()

    await _keep(bus, found, every_s)


async def maintain(bus: Bus, every_s: float = KEEP_EVERY_S) -> None:
    """Keep all streams, and the consumers of `durables_in_use`, until cancelled. The planner's side runs this."""

    async def found() -> Iterable[Durable]:
        return await durables_in_use(bus)

    await run_together({"keep streams": stream_admin.keep(bus), "keep consumers": _keep(bus, found, every_s)})


async def _keep(bus: Bus, durables: Callable[[], Awaitable[Iterable[Durable]]], every_s: float) -> None:
    async def work() -> None:
        created = await ensure_all(bus, await durables())
        if created:
            _log.info("%d consumers created", created)

    await run_periodically(bus, "consumers", work, every_s)


async def durables_in_use(bus: Bus) -> list[Durable]:
    """A consumer for every node with telemetry or decisions, and for every deployment with decisions.

    Raises BusAwayError, NotPermittedError.
    """
    subjects = bus.subjects
    nodes: set[str] = set()
    for wildcard in (subjects.all_of("telemetry", "node"), subjects.all_of("decision", "power")):
        nodes |= {parsed.who for one in await subjects_of(bus, wildcard) if (parsed := subjects.parse(one))}
    scaled = await subjects_of(bus, subjects.all_of("decision", "scaling"))
    deployments = {parsed.who for one in scaled if (parsed := subjects.parse(one))}
    return [Durable.power(bus, node) for node in sorted(nodes)] + [
        Durable.scaling(bus, deployment) for deployment in sorted(deployments)
    ]


async def _names(bus: Bus, stream: str) -> set[str]:
    """The names of all consumers of ``stream``.

    nats-py has no call for names. Its ``consumers_info`` brings full descriptions: at 5,000 consumers that took 240 ms
    of CPU in this process, against 8 ms for the names (measured), and this runs every few seconds.
    """
    found: set[str] = set()
    while True:
        body = json.dumps({"offset": len(found)}).encode()
        value = answer(await ask(bus, f"$JS.API.CONSUMER.NAMES.{stream}", body))
        problem = error_of(value)
        if problem is not None:
            raise NotStoredError(f"consumers of {stream}: {problem.text}", problem.code)
        names = value.get("consumers") or []
        found.update(names)
        if not names or len(found) >= int(value.get("total", 0)):
            return found
