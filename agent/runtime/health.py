"""The HTTP server of an agent or a connector: ``/livez``, ``/readyz``, ``/metrics``.

Answers GET from memory, one request per connection.

Owns the listener and its limits. The process runs as root, so a client may neither hold a connection open nor open
many of them: a request that is not answered after ``request_s`` is cut off, and so is every connection above
``max_connections``. Uses aiohttp's low-level server: three fixed paths need no router, and ``aiohttp.web`` as a
whole costs 1.4 MB more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response
from aiohttp.web_server import Server

log = logging.getLogger(__name__)

REQUEST_S = 5.0
MAX_CONNECTIONS = 64
SHUTDOWN_S = 1.0
PLAIN_TEXT = "text/plain; charset=utf-8"
METRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Readiness(Protocol):
    """What the server asks of its process."""

    @property
    def not_ready(self) -> str:
        """Why the process is not ready; empty where it is."""
        ...


class AgentHealthServer:
    """Serves one process's state on ``host:port``; port 0 lets the system choose, ``url`` names the one in use.

    Live: the process answers. Ready: ``service.not_ready`` is empty; ``notes``: lines below that, which change nothing.
    """

    def __init__(
        self,
        service: Readiness,
        metrics: Callable[[], bytes],
        *,
        host: str,
        port: int,
        request_s: float = REQUEST_S,
        max_connections: int = MAX_CONNECTIONS,
        notes: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._host, self._port = host, port
        self._request_s = request_s
        self._max_connections = max_connections
        self._notes = notes
        self.pages: Mapping[str, Callable[[], Response]] = {
            "/livez": lambda: _text("ok\n"),
            "/readyz": self._readyz,
            "/metrics": self._show_metrics,
        }
        self.url = ""

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError when the address cannot be bound."""
        requests = Server(self._answer, access_log=None, logger=_request_log(), lingering_time=0.0)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: self._protocol(requests, loop), self._host, self._port)
        host, port = listener.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        log.info("serving /livez, /readyz and /metrics on %s", self.url)
        try:
            await listener.serve_forever()
        finally:
            listener.close()
            await requests.shutdown(SHUTDOWN_S)

    def _protocol(self, requests: Server, loop: asyncio.AbstractEventLoop) -> asyncio.Protocol:
        """The protocol of a new connection. aiohttp has no time-out of its own for a request that is half sent."""
        if len(requests.connections) >= self._max_connections:
            return _Refused()
        connection = requests()
        loop.call_later(self._request_s, lambda: _cut_off(connection.transport))
        return connection

    async def _answer(self, request: BaseRequest) -> Response:
        page = self.pages.get(request.path)
        if request.method != "GET":
            response = _text("only GET\n", 405)
            response.headers["Allow"] = "GET"
        else:
            response = page() if page is not None else _text("no such page\n", 404)
        response.force_close()
        return response

    def _readyz(self) -> Response:
        why = self._service.not_ready
        notes = "".join(f"note: {one}\n" for one in self._notes())
        return _text(f"not ready: {why}\n{notes}", 503) if why else _text(f"ok\n{notes}")

    def _show_metrics(self) -> Response:
        return Response(body=self._metrics(), headers={"Content-Type": METRICS_TEXT})


class _Refused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _cut_off(transport)


def _cut_off(transport: asyncio.BaseTransport | None) -> None:
    if isinstance(transport, asyncio.Transport):
        transport.abort()


def _text(text: str, status: int = 200) -> Response:
    return Response(body=text.encode(), status=status, headers={"Content-Type": PLAIN_TEXT})


def _request_log() -> logging.Logger:
    """Errors of the pages are logged; requests that are not HTTP are not, or a port scan would fill the log."""
    requests = logging.getLogger(f"{__name__}.requests")
    if not requests.filters:
        requests.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
    return requests
