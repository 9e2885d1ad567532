"""Composes the virtual connector over Redis from its settings, runs it, and stops it in order."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric

from agent.connectors.bus_claims import claimed
from agent.connectors.connector_file import ConnectorFile
from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.virtual.bridge import TWO_ROLES
from agent.connectors.virtual.dynamo_hash import target_key
from agent.connectors.virtual.store_file import REDIS_PASSWORD_ENV, REDIS_PORT, RedisSection
from bus_schemas.jetstream.tasks.task_group import run_together
from deploy.cli.errors import UsageError
from deploy.compose.connectors.connector_metrics import ChannelMetrics
from deploy.compose.connectors.connector_process import connected, metrics_page, pages, run_until_signal, this_process

if TYPE_CHECKING:
    from agent.connectors.virtual.redis_bridge import RedisBridge
    from agent.connectors.virtual.redis_store import RedisAccess


def redis_access_of(section: RedisSection) -> RedisAccess:
    """How to reach Redis. Raises UsageError for files that cannot be used, and where Redis' client is missing."""
    if find_spec("redis") is None:
        raise UsageError("redis is not installed: pip install 'wattscale[redis]'")
    from agent.connectors.virtual.redis_store import RedisAccess

    try:
        section.tls()  # a file that cannot be used is named now, not at the first connection
        path = section.password_file
        password = path.read_text(encoding="utf-8").strip() if path else os.environ.get(REDIS_PASSWORD_ENV, "")
    except (OSError, ValueError) as error:
        raise UsageError(f"redis: {error}") from error
    if section.user and not password:
        raise UsageError(f"redis.user is set without a password: set redis.password_file or {REDIS_PASSWORD_ENV}")
    files = {
        "ssl_ca_certs": section.tls_ca_file,
        "ssl_certfile": section.tls_cert_file,
        "ssl_keyfile": section.tls_key_file,
    }
    address = section.address
    return RedisAccess(
        host=address.hostname or "",
        port=address.port or REDIS_PORT,
        database=section.database,
        user=section.user,
        password=password,
        tls={name: str(file) for name, file in files.items() if file} if address.scheme == "rediss" else None,
        timeout_s=section.timeout_s,
    )


@dataclass(slots=True, eq=False)
class RedisView:
    """What the pages show. ``channel`` and ``bridge`` are None until the bus was reached."""

    deployment: str
    channel: ScalingChannel | None = None
    bridge: RedisBridge | None = None

    @property
    def not_ready(self) -> str:
        """Why decisions cannot be carried out now; empty where they can."""
        if self.channel is None or self.bridge is None or not self.channel.started.is_set():
            return "the bus has not been reached yet"
        if not self.channel.connected:
            return "the bus is away"
        return "" if self.bridge.serving else self.bridge.trouble

    def collect(self) -> Iterator[Metric]:
        """The metrics, read when the page is made."""
        if self.channel is None or self.bridge is None:
            return
        yield from ChannelMetrics(self.channel).collect()
        text = "1 while Redis answers and this connector alone serves the hash."
        serving = GaugeMetricFamily("wattscale_connector_serving", text, labels=["deployment"])
        serving.add_metric([self.deployment], float(self.bridge.serving))
        yield serving

    def page(self) -> bytes:
        """The metrics as text in Prometheus' format."""
        return metrics_page(self)


async def run_redis(settings: ConnectorFile) -> int:
    """Run until SIGTERM or SIGINT. Raises UsageError for settings that cannot work here."""
    access = redis_access_of(settings.redis)
    view = RedisView(settings.deployment)
    return await run_until_signal(
        {"connector": carry_out(settings, access, view), **pages(settings.http, view, view.page)}
    )


async def carry_out(settings: ConnectorFile, access: RedisAccess, view: RedisView) -> None:
    """Carry decisions out until cancelled. Raises SecondConnectorError."""
    from agent.connectors.virtual.redis_bridge import RedisBridge
    from agent.connectors.virtual.redis_store import RedisStore

    name = settings.name or f"virtual (redis) on {socket.gethostname()}"
    key = target_key(settings.redis.key_prefix, settings.served_namespace, settings.model)
    bus = await connected(settings.nats.model_copy(update={"name": f"wattscale-connector-{settings.deployment}"}))
    try:
        async with RedisStore(access, key) as store:
            holder = this_process(name)
            # The hash is claimed in Redis, where connectors of other buses see it too.
            async with claimed(bus, holder, {settings.deployment: {}}, settings.claim_ttl_s) as claims:
                view.channel = ScalingChannel(bus, settings.deployment, name, leaves_other_pools=TWO_ROLES)
                view.bridge = RedisBridge(store, view.channel, holder)
                parts = {"decisions": view.channel.run(), "redis": view.bridge.run(), "claims": claims.keep()}
                await run_together(parts)
    finally:
        await bus.close()
