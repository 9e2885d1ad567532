"""One connection to the bus: the first connect is bounded in time, reconnecting afterwards never ends.

Owns the client and the list of the server's refusals. Must never print a secret. The client library closes for good
after some refusals (an expired credential, a restarted authentication service): `ready` then opens a new client.
"""

from __future__ import annotations

import asyncio
import logging
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

from bus_schemas.errors import BusError, BusRefusedError, BusUnreachableError, ServerTooOldError
from bus_schemas.jetstream.patched_client import FastClient
from bus_schemas.jetstream.settings import PASSWORD_ENV, TOKEN_ENV, BusSettings
from bus_schemas.jetstream.tasks.backoff import Backoff, pause_s
from bus_schemas.jetstream.tasks.cancellation import cancellation_kept
from bus_schemas.jetstream.tasks.task_group import ended
from bus_schemas.regular_files import open_regular, read_secret
from bus_schemas.subjects import Subjects

__all__ = ["Bus", "BusError", "BusUnreachableError", "connect", "unopened"]

_log = logging.getLogger(__name__)
KEPT_VIOLATIONS = 100
REOPEN_FIRST_S = 0.5
REOPEN_LONGEST_S = 2.0
OLDEST_SERVER = (2, 12, 1)
"""The first nats-server with atomic batches of messages that carry ids. 2.12.0 refuses the ids, and an older one stores
single messages of a decision and says nothing."""
_REFUSALS = ("authorization", "authentication", "certificate", "expired", "revoked", "maximum connections", "alert")


def _kept() -> deque[str]:
    return deque(maxlen=KEPT_VIOLATIONS)


@dataclass(slots=True)
class Bus:
    """An open connection.

    ``violations``: the newest errors that the server or the client reported. A refused request itself only times out.
    ``on_reconnect``: called after each reconnect, when the client closed for good, and when it dropped messages of a
    slow subscriber; readers that follow a stream then read what they missed.
    """

    nc: Client
    js: JetStreamContext
    subjects: Subjects
    settings: BusSettings
    violations: deque[str] = field(default_factory=_kept)
    on_reconnect: set[Callable[[], None]] = field(default_factory=set)
    closing: bool = False
    opened: bool = True
    """Whether a client was ever connected; `unopened` makes one that was not."""
    trouble: str = ""
    """Why no client could be opened at the last attempt; empty once one is open."""
    served_by_s: float | None = None
    """Until when requests that nothing serves are sent again, by the loop's clock; None before the first of them."""
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _reopening: Backoff = field(default_factory=lambda: Backoff(REOPEN_FIRST_S, REOPEN_LONGEST_S))
    _giving_up: asyncio.Future[None] | None = None
    _coming_back: asyncio.Future[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the client is connected now."""
        return self.nc.is_connected

    def denied(self, subject: str) -> str | None:
        """The server's latest permission error about ``subject``, or None."""
        quoted = f'"{subject.lower()}"'
        return next((text for text in reversed(self.violations) if quoted in text.lower()), None)

    async def ready(self) -> None:
        """Wait until connected, without a time limit; open a new client where the old one closed for good."""
        while not self.nc.is_connected:
            if self._gone and not self.closing:
                await self._reopen()
            else:
                await asyncio.sleep(0.05)

    @property
    def _gone(self) -> bool:
        return self.nc.is_closed or not self.opened

    async def _reopen(self) -> None:
        async with self._opening:
            if not self._gone or self.closing:
                return
            try:
                self.nc = await _open(self.settings, self)
            except BusUnreachableError as error:
                self.violations.append(str(error))
                if str(error) != self.trouble:
                    _log.warning("%s; trying again until it is there", error)
                self.trouble = str(error)
                await asyncio.sleep(self._reopening.next_s())
                return
            if self.trouble:
                _log.info("connected to NATS at %s", ", ".join(self.settings.servers))
            self.opened, self.trouble = True, ""
            self._reopening.reset()
            self.js = self.nc.jetstream(timeout=self.settings.request_timeout_s)
        self.wake()

    def wake(self) -> None:
        """Call the ``on_reconnect`` listeners: they may have missed messages."""
        for listener in tuple(self.on_reconnect):
            listener()

    def note_error(self, text: str) -> None:
        """Record an error that the client reported, and act on it."""
        self.violations.append(text)
        if "slow consumer" in text.lower():
            self.wake()
        elif not self.nc.is_connected and _refuses(text):
            # The client would present the same certificate or key forever; `ready` reads them from their files again.
            self._giving_up = asyncio.ensure_future(self.nc.close())

    def came_back(self, client: Client) -> None:
        """Act on a reconnect of ``client``: its server may be another one, of another version."""
        if lack := _lack(client):
            self.violations.append(f"{lack[0]}: {lack[1]}")
            # `ready` then opens a new client, and says why it cannot.
            self._giving_up = asyncio.ensure_future(client.close())
        else:
            self.wake()

    def gave_up(self, client: Client) -> None:
        """Record that ``client`` closed for good. A new one is opened, also where no caller waits for it."""
        if client is self.nc and not self.closing:
            if client.last_error is not None:
                self.violations.append(f"the server ended the connection: {client.last_error}")
            self._coming_back = asyncio.ensure_future(self.ready())
            # A reader that waits for messages cannot tell this from a quiet stream.
            self.wake()

    async def close(self) -> None:
        """Close without waiting for a server that may be gone."""
        self.closing = True
        if self._coming_back is not None:
            self._coming_back.cancel()
        if not self.opened:
            return
        with suppress(TimeoutError, NatsError, OSError):
            async with asyncio.timeout(2.0):
                with cancellation_kept():
                    await self.nc.close()


def unopened(settings: BusSettings) -> Bus:
    """A connection that `Bus.ready` opens once a server is there; until then it is not connected."""
    client = Client()
    return Bus(client, client.jetstream(), Subjects(settings.prefix), settings, opened=False)


async def connect(settings: BusSettings) -> Bus:
    """Open a connection within ``connect_timeout_s``.

    Raises BusUnreachableError, of which BusRefusedError where a server answered and refused us, and ServerTooOldError.
    """
    bus = unopened(settings)
    bus.nc = await _open(settings, bus)
    bus.js = bus.nc.jetstream(timeout=settings.request_timeout_s)
    bus.opened = True
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
            bus.note_error(text)
        elif not refused.done() and _refuses(text):
            refused.set_result(text)

    async def on_reconnected() -> None:
        bus.came_back(nc)

    async def on_closed() -> None:
        bus.gave_up(nc)

    try:
        options = _options(settings)
    except OSError as error:
        raise BusUnreachableError(f"cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, ssl.SSLError) as error:
        raise BusUnreachableError(f"the TLS settings for {where} cannot be used: {error}") from error
    callbacks: dict[str, Any] = {"error_cb": on_error, "reconnected_cb": on_reconnected, "closed_cb": on_closed}
    opening = asyncio.ensure_future(nc.connect(**options, **callbacks))
    try:
        waited: set[asyncio.Future[Any]] = {opening, refused}
        await asyncio.wait(waited, timeout=settings.connect_timeout_s, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await _abandon(nc, opening)
        raise
    failure = opening.exception() if opening.done() and not opening.cancelled() else None
    if opening.done() and failure is None:
        refused.cancel()
        if lack := _lack(nc):
            await _abandon(nc, opening)
            raise ServerTooOldError(f"NATS at {where}: {lack[0]}", lack[1])
        return nc
    await _abandon(nc, opening)
    if refused.done():
        # The first error: a refusal is often followed by a connection reset, which explains nothing.
        raise BusRefusedError(f"NATS at {where} refused us: {refused.result()}") from failure
    why = complaints[-1] if complaints else str(failure or f"no answer in {settings.connect_timeout_s:g} s")
    refused.cancel()
    raise BusUnreachableError(f"cannot reach NATS at {where}: {why}") from failure


def server_version(nc: Client) -> tuple[int, int, int] | None:
    """The version of the server that ``nc`` is connected to; None where it says none that is of three numbers."""
    server = nc.connected_server_version
    try:
        version = (server.major, server.minor, server.patch)
    except ValueError:
        return None
    return None if version == (0, 0, 0) else version


def _lack(nc: Client) -> tuple[str, str] | None:
    """What is wrong with a server that is too old, and what to do; None for any other."""
    version = server_version(nc)
    if version is None or version >= OLDEST_SERVER:
        return None
    found, oldest = (".".join(map(str, one)) for one in (version, OLDEST_SERVER))
    what = f"nats-server {found} is older than {oldest} and lacks atomic batches with ids"
    return what, f"update it to {oldest} or newer"


def _refuses(text: str) -> bool:
    return any(word in text.lower() for word in _REFUSALS)


async def _abandon(nc: Client, opening: asyncio.Future[None]) -> None:
    await ended(opening, again_s=0.1)
    # A client that has not begun to connect asserts that it was connected.
    with suppress(TimeoutError, NatsError, OSError, AssertionError):
        async with asyncio.timeout(2.0):
            with cancellation_kept():
                await nc.close()


def _options(settings: BusSettings) -> dict[str, Any]:
    first_s, last_s = settings.reconnect_first_s, settings.reconnect_last_s

    def next_server(pool: list[Server], _: dict[str, Any]) -> tuple[Server, float]:
        # The server with the fewest attempts, after a pause with jitter: a fleet must not reconnect in one instant.
        chosen = min(pool, key=lambda server: (server.reconnects, random.random()))
        return chosen, pause_s(first_s, last_s, chosen.reconnects)

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
    """Our credentials. The files are checked now and read again at each reconnect."""
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
        return lambda: read_secret(file)
    return lambda: os.environ.get(variable, "")


def _readable(file: Path) -> None:
    open_regular(file).close()


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
