"""One connection to the bus: bounded in time at the start, for ever reconnecting afterwards.

Owns the client and what the server said against us. Must never print a secret. The client library gives up for good
after some refusals (an expired credential, a restarted authentication service): `ready` then opens a new one.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nats.aio.client import Client, Server
from nats.errors import Error as NatsError
from nats.js.client import JetStreamContext

from bus_schemas.errors import BusError, BusRefusedError, BusUnreachableError
from bus_schemas.jetstream.patched_client import FastClient
from bus_schemas.jetstream.settings import PASSWORD_ENV, TOKEN_ENV, BusSettings
from bus_schemas.jetstream.tasks.cancellation import cancellation_kept
from bus_schemas.jetstream.tasks.task_group import ended
from bus_schemas.subjects import Subjects

__all__ = ["Bus", "BusError", "BusUnreachableError", "connect"]

KEPT_VIOLATIONS = 100
REOPEN_S = 1.0
_REFUSALS = ("authorization", "authentication", "certificate", "expired", "revoked", "maximum connections", "alert")


def _kept() -> deque[str]:
    return deque(maxlen=KEPT_VIOLATIONS)


@dataclass(slots=True)
class Bus:
    """An open connection. ``violations`` holds what the server refused us: the client shows it as a time-out only.

    ``on_reconnect`` are called after each reconnect, when the client gave up for good, and when it dropped messages it
    could not keep up with: whoever follows a stream looks for what it missed.
    """

    nc: Client
    js: JetStreamContext
    subjects: Subjects
    settings: BusSettings
    violations: deque[str] = field(default_factory=_kept)
    on_reconnect: set[Callable[[], None]] = field(default_factory=set)
    closing: bool = False
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _giving_up: asyncio.Future[None] | None = None
    _coming_back: asyncio.Future[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the link stands right now."""
        return self.nc.is_connected

    def denied(self, subject: str) -> str | None:
        """What the server said when it refused us this subject, or None."""
        wanted = f'"{subject.lower()}"'
        return next((text for text in reversed(self.violations) if wanted in text.lower()), None)

    async def ready(self) -> None:
        """Wait until the link stands; open a new one where the client has given up. For ever, unless cancelled."""
        while not self.nc.is_connected:
            if self.nc.is_closed and not self.closing:
                await self._reopen()
            else:
                await asyncio.sleep(0.05)

    async def _reopen(self) -> None:
        async with self._opening:
            if not self.nc.is_closed or self.closing:
                return
            try:
                self.nc = await _open(self.settings, self)
            except BusUnreachableError as error:
                self.violations.append(str(error))
                await asyncio.sleep(REOPEN_S * random.uniform(0.5, 1.5))
                return
            self.js = self.nc.jetstream(timeout=self.settings.request_timeout_s)
        self.wake()

    def wake(self) -> None:
        """Tell those who follow streams that they may have missed something."""
        for listener in tuple(self.on_reconnect):
            listener()

    def heard(self, text: str) -> None:
        """Note what the client complains of."""
        self.violations.append(text)
        if "slow consumer" in text.lower():
            self.wake()
        elif not self.nc.is_connected and _refuses(text):
            # It would show the same certificate or key for ever; `ready` reads them again.
            self._giving_up = asyncio.ensure_future(self.nc.close())

    def gave_up(self, client: Client) -> None:
        """Note that the client closed for good: another is opened, whoever waits for it or does not."""
        if client is self.nc and not self.closing:
            self._coming_back = asyncio.ensure_future(self.ready())
            # Who waits for messages may take silence for normal.
            self.wake()

    async def close(self) -> None:
        """Close without waiting for a server that may be gone."""
        self.closing = True
        if self._coming_back is not None:
            self._coming_back.cancel()
        with suppress(TimeoutError, NatsError, OSError):
            async with asyncio.timeout(2.0):
                with cancellation_kept():
                    await self.nc.close()


async def connect(settings: BusSettings) -> Bus:
    """Connect within ``connect_timeout_s`` in all.

    Raises BusUnreachableError (BusRefusedError where a server said no).
    """
    nothing = Client()
    bus = Bus(nothing, nothing.jetstream(), Subjects(settings.prefix), settings)
    bus.nc = await _open(settings, bus)
    bus.js = bus.nc.jetstream(timeout=settings.request_timeout_s)
    return bus


async def _open(settings: BusSettings, bus: Bus) -> Client:
    nc = FastClient()
    where = ", ".join(settings.servers)
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    complaints: deque[str] = deque(maxlen=3)

    async def on_error(error: Exception) -> None:
        text = str(error) or type(error).__name__
        complaints.append(text)
        if nc is bus.nc:
            bus.heard(text)
        elif not refused.done() and _refuses(text):
            refused.set_result(text)

    async def on_reconnected() -> None:
        bus.wake()

    async def on_closed() -> None:
        bus.gave_up(nc)

    try:
        options = _options(settings)
    except OSError as error:
        raise BusUnreachableError(f"can not read {error.filename}: {error.strerror}") from error
    except (ValueError, ssl.SSLError) as error:
        raise BusUnreachableError(f"the TLS settings for {where} can not be used: {error}") from error
    told: dict[str, Any] = {"error_cb": on_error, "reconnected_cb": on_reconnected, "closed_cb": on_closed}
    opening = asyncio.ensure_future(nc.connect(**options, **told))
    try:
        waited: set[asyncio.Future[Any]] = {opening, refused}
        await asyncio.wait(waited, timeout=settings.connect_timeout_s, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await _abandon(nc, opening)
        raise
    failure = opening.exception() if opening.done() and not opening.cancelled() else None
    if opening.done() and failure is None:
        refused.cancel()
        return nc
    await _abandon(nc, opening)
    if refused.done():
        # What was said first: a refusal is often followed by a reset connection, which explains nothing.
        raise BusRefusedError(f"NATS at {where} refused us: {refused.result()}") from failure
    why = complaints[-1] if complaints else str(failure or f"no answer in {settings.connect_timeout_s:g} s")
    refused.cancel()
    raise BusUnreachableError(f"can not reach NATS at {where}: {why}") from failure


def _refuses(text: str) -> bool:
    return any(word in text.lower() for word in _REFUSALS)


async def _abandon(nc: Client, opening: asyncio.Future[None]) -> None:
    await ended(opening, again_s=0.1)
    # Not yet begun, the client asserts that it was connected.
    with suppress(TimeoutError, NatsError, OSError, AssertionError):
        async with asyncio.timeout(2.0):
            with cancellation_kept():
                await nc.close()


def _options(settings: BusSettings) -> dict[str, Any]:
    first_s, last_s = settings.reconnect_first_s, settings.reconnect_last_s

    def next_server(pool: list[Server], _: dict[str, Any]) -> tuple[Server, float]:
        # The server tried least often, after a wait with jitter: a fleet must not come back in one instant.
        chosen = min(pool, key=lambda server: (server.reconnects, random.random()))
        wait_s = min(last_s, first_s * 2 ** min(chosen.reconnects, 16))
        return chosen, wait_s * random.uniform(0.5, 1.5)

    options: dict[str, Any] = {
        "servers": list(settings.servers),
        "name": settings.name,
        "inbox_prefix": settings.inbox_prefix,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": first_s,
        "reconnect_to_server_handler": next_server,
        "connect_timeout": settings.connect_timeout_s,
        "ping_interval": 10,
        "max_outstanding_pings": 2,
    }
    return options | _identity(settings) | _tls(settings)


def _identity(settings: BusSettings) -> dict[str, Any]:
    """Who we are. Files are checked now and read again at each reconnect."""
    if settings.creds_file:
        _readable(settings.creds_file)
        return {"user_credentials": str(settings.creds_file)}
    if settings.nkey_seed_file:
        _readable(settings.nkey_seed_file)
        return {"nkeys_seed": str(settings.nkey_seed_file)}
    if settings.user:
        return {"user": settings.user, "password": _secret(settings.password_file, PASSWORD_ENV)}
    if settings.token_file or os.environ.get(TOKEN_ENV):
        return {"token": _secret(settings.token_file, TOKEN_ENV)}
    return {}


def _secret(file: Path | None, variable: str) -> Callable[[], str]:
    if file is not None:
        _readable(file)
        return lambda: file.read_text().strip()
    return lambda: os.environ.get(variable, "")


def _readable(file: Path) -> None:
    with file.open("rb"):
        pass


def _tls(settings: BusSettings) -> dict[str, Any]:
    if not (settings.tls_ca_file or settings.tls_cert_file or any(s.startswith("tls:") for s in settings.servers)):
        return {}
    if settings.tls_ca_file:
        _readable(settings.tls_ca_file)
    context = ssl.create_default_context(cafile=settings.tls_ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls_cert_file and settings.tls_key_file:
        _readable(settings.tls_cert_file)
        _readable(settings.tls_key_file)
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    options: dict[str, Any] = {"tls": context}
    if settings.tls_hostname:
        options["tls_hostname"] = settings.tls_hostname
    return options
