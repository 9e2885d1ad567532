"""Composes the virtual connector from its settings, runs it, and stops it in order."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

from agent.connectors.bus_claims import claimed
from agent.connectors.connector_file import ConnectorFile
from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.virtual.bridge import TWO_ROLES, VirtualBridge
from agent.connectors.virtual.etcd_gateway import EtcdAccess, EtcdGateway
from agent.connectors.virtual.store_file import PASSWORD_ENV, EtcdSection
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.subjects import BadNameError, scaling_consumer
from deploy.cli.errors import UsageError
from deploy.compose.connectors.connector_process import (
    connected,
    log_to_stderr,
    pages,
    run_until_signal,
    this_process,
)
from deploy.compose.connectors.pin_service import run_pins
from deploy.compose.connectors.store_view import StoreView

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


async def _run(settings: ConnectorFile, access: EtcdAccess) -> int:
    view = StoreView(settings.deployment, "etcd")
    return await run_until_signal(
        {"connector": carry_out(settings, access, view), **pages(settings.http, view, view.page)}
    )


async def carry_out(settings: ConnectorFile, access: EtcdAccess, view: StoreView) -> None:
    """Carry decisions out until cancelled. Raises SecondConnectorError."""
    name = settings.name or f"virtual on {socket.gethostname()}"
    bus = await connected(settings.nats.model_copy(update={"name": f"wattscale-connector-{settings.deployment}"}))
    try:
        async with EtcdGateway(access) as etcd:
            holder = this_process(name)
            # The namespace in etcd is claimed there, where other planners' bridges see it too.
            async with claimed(bus, holder, {settings.deployment: {}}, settings.claim_ttl_s) as claims:
                channel = ScalingChannel(bus, settings.deployment, name, leaves_other_pools=TWO_ROLES)
                bridge = VirtualBridge(etcd, channel, settings.served_namespace, holder)
                view.channel, view.bridge = channel, bridge
                parts = {"decisions": channel.run(), "etcd": bridge.run(), "claims": claims.keep()}
                await run_together(parts)
    finally:
        await bus.close()
