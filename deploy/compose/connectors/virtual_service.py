"""Composes the virtual connector from its settings, runs it, and stops it in order."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from agent.connectors.bus_claims import claimed
from agent.connectors.connector_file import ConnectorFile
from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.virtual.bridge import TWO_ROLES, VirtualBridge
from agent.connectors.virtual.etcd_gateway import EtcdAccess, EtcdGateway
from agent.connectors.virtual.store_file import PASSWORD_ENV, EtcdSection
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.subjects import BadNameError, scaling_consumer
from deploy.cli.errors import UsageError
from deploy.compose.connectors.connector_metrics import ChannelMetrics
from deploy.compose.connectors.connector_process import (
    connected,
    log_to_stderr,
    metrics_page,
    pages,
    run_until_signal,
    this_process,
)
from deploy.compose.connectors.pin_service import run_pins

log = logging.getLogger("wattscale.connector")
DYNAMOS_PASSWORD_ENV = "ETCD_AUTH_PASSWORD"  # noqa: S105  # the name of a variable, not a password


def run_virtual(settings: ConnectorFile) -> int:
    """Run until SIGTERM or SIGINT. Raises UsageError for settings that cannot work here."""
    log_to_stderr(settings.log_level)
    try:
        scaling_consumer(settings.deployment)
    except BadNameError as error:
        raise UsageError(f"deployment: {error}") from error
    if settings.store == "redis":
        from deploy.compose.connectors.redis_service import run_redis

        return asyncio.run(run_redis(settings))
    access = access_of(settings.etcd)
    if settings.direction == "from-dynamo":
        return asyncio.run(run_pins(settings, access))
    return asyncio.run(_run(settings, access))


def access_of(section: EtcdSection) -> EtcdAccess:
    """How to reach etcd. Raises UsageError for files that cannot be used, or a user without a password."""
    try:
        tls = section.tls()
        path = section.password_file
        known = os.environ.get(PASSWORD_ENV) or os.environ.get(DYNAMOS_PASSWORD_ENV, "")
        password = path.read_text(encoding="utf-8").strip() if path else known
    except (OSError, ValueError) as error:
        raise UsageError(f"etcd: {error}") from error
    if section.user and not password:
        raise UsageError(f"etcd.user is set without a password: set etcd.password_file or {PASSWORD_ENV}")
    return EtcdAccess(section.endpoints, section.user, password, tls, section.timeout_s)


@dataclass(slots=True, eq=False)
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
        yield from ChannelMetrics(channel).collect()
        gauges = {
            "external_decision_id": ("The highest id that was passed on to etcd; -1: none.", channel.external_id),
            "serving": ("1 while etcd answers and this connector alone serves the namespace.", self.bridge.serving),
        }
        for name, (text, value) in gauges.items():
            family = GaugeMetricFamily(f"wattscale_connector_{name}", text, labels=labels)
            family.add_metric([self.deployment], float(value))
            yield family

    def page(self) -> bytes:
        """The metrics as text in Prometheus' format."""
        return metrics_page(self)


async def _run(settings: ConnectorFile, access: EtcdAccess) -> int:
    view = ConnectorView(settings.deployment)
    return await run_until_signal(
        {"connector": carry_out(settings, access, view), **pages(settings.http, view, view.page)}
    )


async def carry_out(settings: ConnectorFile, access: EtcdAccess, view: ConnectorView) -> None:
    """Carry decisions out until cancelled. Raises SecondConnectorError."""
    name = settings.name or f"virtual on {socket.gethostname()}"
    bus = await connected(settings.nats.model_copy(update={"name": f"wattscale-connector-{settings.deployment}"}))
    try:
        async with EtcdGateway(access) as etcd:
            holder = this_process(name)
            # The namespace in etcd is claimed there, where other planners' bridges see it too.
            async with claimed(bus, holder, {settings.deployment: {}}, settings.claim_ttl_s) as claims:
                view.channel = ScalingChannel(bus, settings.deployment, name, leaves_other_pools=TWO_ROLES)
                view.bridge = VirtualBridge(etcd, view.channel, settings.served_namespace, holder)
                parts = {"decisions": view.channel.run(), "etcd": view.bridge.run(), "claims": claims.keep()}
                await run_together(parts)
    finally:
        await bus.close()
