"""Composes the virtual connector over Redis from its settings, runs it, and stops it in order."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING

from agent.connectors.bus_claims import claimed
from agent.connectors.connector_file import ConnectorFile
from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.virtual.bridge import TWO_ROLES
from agent.connectors.virtual.dynamo_hash import target_key
from agent.connectors.virtual.store_file import REDIS_PASSWORD_ENV, REDIS_PORT, RedisSection
from bus_schemas.jetstream.tasks.task_group import run_together
from deploy.cli.errors import UsageError
from deploy.compose.connectors.connector_process import connected, pages, run_until_signal, this_process
from deploy.compose.connectors.store_view import StoreView

if TYPE_CHECKING:
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


async def run_redis(settings: ConnectorFile) -> int:
    """Run until SIGTERM or SIGINT. Raises UsageError for settings that cannot work here."""
    access = redis_access_of(settings.redis)
    view = StoreView(settings.deployment, "Redis")
    return await run_until_signal(
        {"connector": carry_out(settings, access, view), **pages(settings.http, view, view.page)}
    )


async def carry_out(settings: ConnectorFile, access: RedisAccess, view: StoreView) -> None:
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
                channel = ScalingChannel(bus, settings.deployment, name, leaves_other_pools=TWO_ROLES)
                bridge = RedisBridge(store, channel, holder)
                view.channel, view.bridge = channel, bridge
                parts = {"decisions": channel.run(), "redis": bridge.run(), "claims": claims.keep()}
                await run_together(parts)
    finally:
        await bus.close()
