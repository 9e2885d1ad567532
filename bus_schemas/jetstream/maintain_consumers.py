"""What the planner's side looks after for everyone: the streams, and a consumer for each agent and actuator.

Finds them by what is on the bus: a node that reports gets its consumer, and so does a deployment that has decisions.
Any number of planners may do it at once: all of it is idempotent.
"""

from __future__ import annotations

import logging

from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import KEEP_EVERY_S, Durable, ensure_all
from bus_schemas.jetstream.stored_messages import subjects_of
from bus_schemas.jetstream.tasks.periodic import run_periodically
from bus_schemas.jetstream.tasks.task_group import run_together

_log = logging.getLogger(__name__)


async def maintain(bus: Bus, every_s: float = KEEP_EVERY_S) -> None:
    """Streams and consumers, until cancelled: at once, after each reconnect, and every few seconds."""
    await run_together({"keep streams": stream_admin.keep(bus), "keep consumers": _keep_consumers(bus, every_s)})


async def _keep_consumers(bus: Bus, every_s: float) -> None:
    async def work() -> None:
        made = await ensure_all(bus, await wanted(bus))
        if made:
            _log.info("%d consumers made", made)

    await run_periodically(bus, "consumers", work, every_s)


async def wanted(bus: Bus) -> list[Durable]:
    """A consumer for every node that reports, and for every deployment with decisions. Raises BusAwayError."""
    subjects = bus.subjects
    nodes: set[str] = set()
    for wildcard in (subjects.all_of("telemetry", "node"), subjects.all_of("decision", "power")):
        nodes |= {parsed.who for one in await subjects_of(bus, wildcard) if (parsed := subjects.parse(one))}
    scaled = await subjects_of(bus, subjects.all_of("decision", "scaling"))
    deployments = {parsed.who for one in scaled if (parsed := subjects.parse(one))}
    return [Durable.power(bus, node) for node in sorted(nodes)] + [
        Durable.scaling(bus, deployment) for deployment in sorted(deployments)
    ]
