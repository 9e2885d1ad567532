"""The listener of the health pages, with its limits. The agent's is of the same kind: no package may import the other.

A client may neither hold a connection open nor open many of them: one that is not done after ``request_s`` is cut off,
and so is every connection above ``max_connections``.
"""

from __future__ import annotations

import asyncio
import logging
from weakref import WeakSet

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

REQUEST_S = 5.0
MAX_CONNECTIONS = 64
LAST_ANSWERS_S = 1.0


class HttpListener:
    """Serves ``app`` on ``host:port`` (0: a free port) between `start` and `close`."""

    def __init__(
        self, app: web.Application, *, request_s: float = REQUEST_S, max_connections: int = MAX_CONNECTIONS
    ) -> None:
        # Do not wait for a client that does not read its answer; the library would do so for a minute.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=LAST_ANSWERS_S,
            lingering_time=0.0,
            keepalive_timeout=request_s,
            logger=_request_log(),
        )
        self._request_s = request_s
        self._max_connections = max_connections
        self._listener: asyncio.Server | None = None
        self._kept_open: WeakSet[asyncio.BaseTransport] = WeakSet()

    async def start(self, host: str, port: int) -> str:
        """Listen; the address as a URL. Raises OSError where it cannot be bound."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._protocol, host, port)
        there, bound = self._listener.sockets[0].getsockname()[:2]
        return f"http://{there}:{bound}"

    def keep_open(self, transport: asyncio.BaseTransport) -> None:
        """Do not cut off this connection after ``request_s``: its answer is a stream without an end."""
        self._kept_open.add(transport)

    async def close(self) -> None:
        """Stop listening and close open connections."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    def _protocol(self) -> asyncio.Protocol:
        """The protocol of a new connection. aiohttp has no time-out of its own for a request that is half sent."""
        server = self._runner.server
        if server is None or len(server.connections) >= self._max_connections:
            return _TooMany()
        connection = server()
        asyncio.get_running_loop().call_later(self._request_s, lambda: self._end(connection.transport))
        return connection

    def _end(self, transport: asyncio.BaseTransport | None) -> None:
        if transport is not None and transport not in self._kept_open:
            _cut_off(transport)


class _TooMany(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _cut_off(transport)


def _cut_off(transport: asyncio.BaseTransport | None) -> None:
    if isinstance(transport, asyncio.Transport):
        transport.abort()


def _request_log() -> logging.Logger:
    """Errors of the pages are logged; requests that are not HTTP are not, because a port scan would fill the log."""
    requests = logging.getLogger(f"{__name__}.requests")
    if not requests.filters:
        requests.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
    return requests
