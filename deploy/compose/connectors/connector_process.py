"""What every connector's process does: log, connect to the bus, run until a signal, end in order."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from agent.connectors.bus_claims import SecondConnectorError
from agent.connectors.connector_file import ConnectorHttpSection
from agent.core.scaling.claims import Holder
from agent.runtime.health import AgentHealthServer, Readiness
from bus_schemas.errors import BusError
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.visible_text import visible_handler
from deploy.cli.errors import UsageError
from deploy.event_loop import limit_repeats, until_signal
from deploy.installed_files import rival_claims

log = logging.getLogger("wattscale.connector")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


def log_to_stderr(level: str) -> None:
    """Log as every command does, and warn of files that another distribution overwrote."""
    logging.basicConfig(level=level.upper(), handlers=[visible_handler("%(levelname)s %(name)s: %(message)s")])
    for claim in rival_claims():
        log.warning(claim)


def this_process(name: str) -> Holder:
    """This process as the holder of claims. Process ids are the same in many containers; the rest is not."""
    return Holder(name, f"process {os.getpid()} {uuid.uuid4().hex[:8]}")


def metrics_page(*collectors: Collector) -> bytes:
    """The metrics of these as text in Prometheus' format."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


def pages(
    http: ConnectorHttpSection,
    view: Readiness,
    metrics: Callable[[], bytes],
    notes: Callable[[], Sequence[str]] = tuple,
) -> dict[str, Coroutine[Any, Any, None]]:
    """The server of the health and metrics pages, as a part to run; nothing where it has no port."""
    if http.port is None:
        return {}
    return {"http": AgentHealthServer(view, metrics, host=http.host, port=http.port, notes=notes).run()}


async def run_until_signal(parts: dict[str, Coroutine[Any, Any, None]]) -> int:
    """Run all parts until SIGTERM or SIGINT, or until one fails.

    Raises UsageError for an address that is taken, and where another connector scales the same.
    """
    limit_repeats(asyncio.get_running_loop())
    try:
        await until_signal(run_together(parts))
    except (OSError, SecondConnectorError) as error:
        raise UsageError(str(error)) from error
    return 0


async def connected(settings: BusSettings) -> Bus:
    """A connection, however long the server is away."""
    backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    while True:
        try:
            return await connect(settings)
        except BusError as error:
            pause_s = backoff.next_s()
            log.warning("%s; trying again in %.1f s", error, pause_s)
            await asyncio.sleep(pause_s)
