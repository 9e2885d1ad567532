"""Composes the virtual connector from its settings, runs it, and stops it in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agent.connectors.connector_file import PASSWORD_ENV, ConnectorFile, EtcdSection
from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.virtual.bridge import SecondConnectorError, VirtualBridge
from agent.connectors.virtual.etcd_gateway import EtcdAccess, EtcdGateway
from agent.core.scaling.claims import Holder
from agent.runtime.health import AgentHealthServer
from bus_schemas.errors import BusError
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import ended, run_together
from bus_schemas.subjects import BadNameError, scaling_consumer
from bus_schemas.visible_text import visible_handler
from deploy.cli.errors import UsageError
from deploy.event_loop import limit_repeats
from deploy.installed_files import rival_claims

log = logging.getLogger("wattscale.connector")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


def run_virtual(settings: ConnectorFile) -> int:
    """Run until SIGTERM or SIGINT. Raises UsageError for settings that cannot work here."""
    handler = visible_handler("%(levelname)s %(name)s: %(message)s")
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    for claim in rival_claims():
        log.warning(claim)
    try:
        scaling_consumer(settings.deployment)
    except BadNameError as error:
        raise UsageError(f"deployment: {error}") from error
    return asyncio.run(_run(settings, _access(settings.etcd)))


def _access(section: EtcdSection) -> EtcdAccess:
    """How to reach etcd. Raises UsageError for files that cannot be used, or a user without a password."""
    try:
        tls = section.tls()
        path = section.password_file
        password = path.read_text(encoding="utf-8").strip() if path else os.environ.get(PASSWORD_ENV, "")
    except (OSError, ValueError) as error:
        raise UsageError(f"etcd: {error}") from error
    if section.user and not password:
        raise UsageError(f"etcd.user is set without a password: set etcd.password_file or {PASSWORD_ENV}")
    return EtcdAccess(section.endpoints, section.user, password, tls, section.timeout_s)


@dataclass(slots=True)
class ConnectorView:
    """What the pages show. ``channel`` and ``bridge`` are None until the bus was reached."""

    deployment: str
    channel: ScalingChannel | None = None
    bridge: VirtualBridge | None = None

    @property
    def not_ready(self) -> str:
        """Why decisions cannot be carried out now; empty where they can."""
        if self.channel is None or self.bridge is None or not self.channel.started.is_set():
            return "the bus has not been reached yet"
        if not self.channel.connected:
            return "the bus is away"
        return "" if self.bridge.serving else f"etcd: {self.bridge.trouble or 'not connected'}"

    def collect(self) -> Iterator[Metric]:
        """The metrics, read when the page is made. A value that is not known is left out."""
        labels, channel = ["deployment"], self.channel
        if channel is None or self.bridge is None:
            return
        state = channel.state
        gauges = {
            "decision_id": ("The decision that is pursued or was last; -1: none.", _id_of(channel)),
            "scaled_decision_id": ("The last decision that was carried out completely; -1: none.", state.scaled_id),
            "external_decision_id": ("The highest id that was passed on to etcd; -1: none.", channel.external_id),
            "bus_connected": ("1 while connected to the bus.", float(channel.connected)),
            "serving": ("1 while etcd answers and this connector alone serves the namespace.", self.bridge.serving),
        }
        for name, (text, value) in gauges.items():
            family = GaugeMetricFamily(f"wattscale_connector_{name}", text, labels=labels)
            family.add_metric([self.deployment], float(value))
            yield family
        counter = CounterMetricFamily(
            "wattscale_connector_decisions", "Decisions received, by what became of them.", labels=[*labels, "verdict"]
        )
        for verdict, count in sorted(channel.received.items()):
            counter.add_metric([self.deployment, verdict], count)
        yield counter

    def page(self) -> bytes:
        """The metrics as text in Prometheus' format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)


def _id_of(channel: ScalingChannel) -> int:
    current = channel.state.current
    return -1 if current is None else current.decision_id


async def _run(settings: ConnectorFile, access: EtcdAccess) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    limit_repeats(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    view = ConnectorView(settings.deployment)
    parts = {"connector": _connector(settings, access, view)}
    if settings.http.port is not None:
        parts["http"] = AgentHealthServer(view, view.page, host=settings.http.host, port=settings.http.port).run()
    running = asyncio.create_task(run_together(parts), name="connector")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    await ended(running, stopping)
    error = None if running.cancelled() else running.exception()
    if isinstance(error, SecondConnectorError | OSError):
        raise UsageError(str(error)) from error
    if error is not None:
        raise error
    return 0


async def _connector(settings: ConnectorFile, access: EtcdAccess, view: ConnectorView) -> None:
    name = settings.name or f"virtual on {socket.gethostname()}"
    bus = await _connected(settings.nats.model_copy(update={"name": f"wattscale-connector-{settings.deployment}"}))
    try:
        async with EtcdGateway(access) as etcd:
            view.channel = ScalingChannel(bus, settings.deployment, name)
            # Process ids are the same in many containers; the rest is not.
            holder = Holder(name, f"process {os.getpid()} ({uuid.uuid4().hex[:8]})")
            view.bridge = VirtualBridge(etcd, view.channel, settings.served_namespace, holder)
            await run_together({"decisions": view.channel.run(), "etcd": view.bridge.run()})
    finally:
        await bus.close()


async def _connected(settings: BusSettings) -> Bus:
    """A connection, however long the server is away."""
    backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    while True:
        try:
            return await connect(settings)
        except BusError as error:
            pause_s = backoff.next_s()
            log.warning("%s; trying again in %.1f s", error, pause_s)
            await asyncio.sleep(pause_s)
