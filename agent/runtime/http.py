"""Three pages over HTTP: ``/livez``, ``/readyz``, ``/metrics``.

Owns a listener that answers GET and nothing else, one request per connection. Three fixed pages need no
routes, bodies or sessions, so this is less to run as root than a web framework's server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

log = logging.getLogger(__name__)

REQUEST_S = 5.0
LARGEST_HEAD_BYTES = 16 * 1024
STATUS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True)
class HttpPage:
    """One answer."""

    body: str
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


class HttpPages:
    """Serves ``pages`` by path on ``host:port``; port 0 is one that the system picks."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], HttpPage]]) -> None:
        self._host = host
        self._port = port
        self._pages = pages
        self.port = 0

    async def run(self) -> None:
        """Until cancelled. Raises OSError when the port is taken."""
        server = await asyncio.start_server(self._serve, self._host, self._port, limit=LARGEST_HEAD_BYTES)
        self.port = server.sockets[0].getsockname()[1]
        log.info("pages on http://%s:%d", self._host, self.port)
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                page = self._answer(head.split(b"\r\n", 1)[0].decode("latin-1"))
                body = page.body.encode()
                writer.write(
                    f"HTTP/1.1 {page.status} {STATUS[page.status]}\r\nContent-Type: {page.content_type}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ConnectionError):
            pass  # Not HTTP, or a client that went away: nobody is left to be told.
        finally:
            writer.close()

    def _answer(self, request: str) -> HttpPage:
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method != "GET":
            return HttpPage("only GET\n", 405)
        make = self._pages.get(path)
        return make() if make is not None else HttpPage("no such page\n", 404)
