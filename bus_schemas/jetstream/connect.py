"""One connection to the bus: bounded in time at the start, for ever reconnecting afterwards."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.client import JetStreamContext

from bus_schemas.errors import BusError, BusUnreachable
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.subjects import Subjects

__all__ = ["Bus", "BusError", "BusUnreachable", "connect"]


@dataclass(slots=True)
class Bus:
    """An open connection. ``violations`` holds what the server refused us: nats-py shows it as a time-out only."""

    nc: Client
    js: JetStreamContext
    subjects: Subjects
    settings: BusSettings
    violations: deque[str] = field(default_factory=lambda: deque(maxlen=100))

    @property
    def connected(self) -> bool:
        return self.nc.is_connected

    async def close(self) -> None:
        """Close without waiting for a server that may be gone."""
        try:
            async with asyncio.timeout(2.0):
                await self.nc.close()
        except (TimeoutError, NatsError, OSError):
            return


def _options(settings: BusSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "servers": list(settings.servers),
        "name": settings.name,
        "max_reconnect_attempts": -1,
        # Jitter, so that a fleet does not come back in one instant.
        "reconnect_time_wait": random.uniform(0.1, 0.5),
        "connect_timeout": settings.connect_timeout_s,
        "allow_reconnect": True,
        "ping_interval": 10,
        "max_outstanding_pings": 2,
    }
    if settings.creds_file:
        options["user_credentials"] = str(settings.creds_file)
    if settings.nkey_seed_file:
        options["nkeys_seed"] = str(settings.nkey_seed_file)
    if settings.user:
        options["user"] = settings.user
    if settings.password_file:
        options["password"] = settings.password_file.read_text().strip()
    if settings.token_file:
        options["token"] = settings.token_file.read_text().strip()
    if settings.tls_ca_file or settings.tls_cert_file:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        options["tls"] = context
    return options


async def connect(settings: BusSettings) -> Bus:
    """Connect within ``connect_timeout_s`` in all. Raises BusUnreachable in one line."""
    violations: deque[str] = deque(maxlen=100)

    async def on_error(error: Exception) -> None:
        violations.append(str(error))

    where = ", ".join(settings.servers)
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            nc = await nats.connect(**_options(settings), error_cb=on_error)
    except (NatsError, OSError, TimeoutError, ValueError) as error:
        why = str(violations[-1] if violations else error) or type(error).__name__
        raise BusUnreachable(f"can not reach NATS at {where}: {why}") from error
    js = nc.jetstream(timeout=settings.request_timeout_s)
    return Bus(nc, js, Subjects(settings.prefix), settings, violations)
