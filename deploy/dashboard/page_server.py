"""Serves the page and what it shows over HTTP: static files, one stream of events, and the past on request.

Reads only, unless it is given a `Steering`. Every address is relative, so the page works behind a path prefix. No
answer may be cached, and the page may load nothing from elsewhere and run nothing that is written into it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from bus_schemas.errors import BadNameError, BusError
from bus_schemas.jetstream.tasks.task_group import ended, run_together
from deploy.dashboard.feed import Feed, Update
from deploy.dashboard.history import explained, happenings, no_record, power_explained, series
from deploy.dashboard.past_reads import AGAIN_S, PastReads, TooManyReadsError
from deploy.dashboard.steering import READ_ONLY, Steering
from planner.runtime.config.settings import LOOPBACK
from planner.runtime.config.url_path import path_of
from planner.runtime.telemetry.http_listener import HttpListener

log = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MOST_VIEWERS = 32
MOST_CONNECTIONS = 128
WRITE_S = 10.0
"""A viewer that takes no byte for this long is cut off."""
QUIET_S = 15.0
"""A comment is sent after this long without an event, so that proxies keep the connection."""
MOST_EVENTS = 300
LONGEST = timedelta(hours=24)
LAST_YEAR = 9999
FILES = {file.name: file for file in STATIC.iterdir() if file.suffix in TYPES}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class DashboardServer:
    """The page on ``host:port`` (0: a free port; ``url`` has it), below ``path_prefix``.

    ``host_names``: names under which browsers may ask, beside the loopback's, where ``host`` is one of the loopback:
    another site's page must not read this one under a name of its own that points here. ``steering``: what carries out
    commands; without it the page is read-only. Raises ValueError for a prefix that is not one of a path.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        host: str,
        port: int,
        path_prefix: str = "",
        host_names: Collection[str] = (),
        steering: Steering | None = None,
    ) -> None:
        self._feed = feed
        self._host, self._port = host, port
        self._prefix = path_of(path_prefix)
        self._names = LOOPBACK | set(host_names) if host in LOOPBACK else None
        self._steering = steering
        self._past = PastReads()
        self._listener: HttpListener | None = None
        self.url = ""
        self.serving = asyncio.Event()
        """Set once ``url`` can be reached."""

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError where the address cannot be bound."""
        listener = self._listener = HttpListener(self._app(), max_connections=MOST_CONNECTIONS)
        try:
            self.url = await listener.start(self._host, self._port) + self._prefix + "/"
            self.serving.set()
            log.info("dashboard on %s", self.url)
            await run_together({"feed": self._feed.run()})
        finally:
            await listener.close()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.on_response_prepare.append(_add_headers)
        routes: dict[str, Handler] = {
            "/": self._file,
            "/static/{name}": self._file,
            "/events": self._events,
            "/series": self._series,
            "/explain": self._explain,
            "/happened": self._happened,
            "/steer": self._steers,
        }
        for path, handler in routes.items():
            app.router.add_get(self._prefix + path, handler)
        app.router.add_post(self._prefix + "/steer", self._steer)
        if self._prefix:
            app.router.add_get(self._prefix, _slash)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        name = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
        if self._names is not None and name.strip("[]") not in self._names:
            return web.Response(status=421, text=f"this page does not serve the name {name!r}\n")
        try:
            return await handler(request)
        except BadNameError as error:
            return web.Response(status=400, text=f"{error}\n")
        except TooManyReadsError:
            text = "too many questions about the past at once; try again\n"
            return web.Response(status=503, text=text, headers={"Retry-After": str(AGAIN_S)})
        except BusError as error:
            return web.Response(status=503, text=f"the bus does not answer: {error}\n")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        file = FILES.get(request.match_info.get("name", "index.html"))
        if file is None:
            raise web.HTTPNotFound
        body = await asyncio.to_thread(file.read_bytes)
        return web.Response(body=body, content_type=TYPES[file.suffix], charset="utf-8")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._feed.viewers >= MOST_VIEWERS:
            return web.Response(
                status=503, text=f"{MOST_VIEWERS} pages are open already\n", headers={"Retry-After": "10"}
            )
        last = request.headers.get("Last-Event-ID") or request.query.get("after", "")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        if self._listener is not None and request.transport is not None:
            self._listener.keep_open(request.transport)
        updates = self._feed.watch(last)
        try:
            await _write(response, b"retry: 1000\n\n")
            async with aclosing(_with_comments(updates)) as events:
                async for event in events:
                    await _write(response, event)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                # Closing in order would wait for a viewer that does not read, without end.
                request.transport.abort()
        finally:
            await updates.aclose()
        return response

    async def _series(self, request: web.Request) -> web.StreamResponse:
        since = datetime.now(UTC) - LONGEST
        deployment = request.query.get("deployment", "")
        async with self._past.place():
            return web.json_response(await series(self._feed.bus, deployment, since, self._feed.document.picture))

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        """What `explain` prints of a decision; of a deployment without a decision's number, of its newest tick."""
        asked, bus = request.query.get("decision"), self._feed.bus
        node, who = request.query.get("node"), request.query.get("deployment", "")
        if not re.fullmatch("[0-9]{1,18}", asked or "") and (asked is not None or node):
            return web.Response(status=400, text="decision: a whole number\n")
        number = None if asked is None else int(asked)
        async with self._past.place():
            if node and number is not None:
                text, who = await power_explained(bus, node, number), node
            else:
                text = await explained(bus, who, number, datetime.now(UTC))
        if text is None:
            return web.Response(status=404, text=no_record(number, who) + "\n")
        return web.Response(text=text)

    async def _happened(self, request: web.Request) -> web.StreamResponse:
        """The timeline of a period: ``from`` and ``to`` in milliseconds since 1970."""
        try:
            begin, end = (datetime.fromtimestamp(int(request.query[key]) / 1000, UTC) for key in ("from", "to"))
        except (KeyError, ValueError, OverflowError, OSError):
            return web.Response(status=400, text="from and to: milliseconds since 1970\n")
        if not (timedelta() <= end - begin <= LONGEST and 1970 <= begin.year <= end.year < LAST_YEAR):
            return web.Response(status=400, text="from and to: a period of at most 24 hours\n")
        async with self._past.place():
            found = await happenings(self._feed.bus, begin, end, MOST_EVENTS)
        body: dict[str, Any] = {"events": [one.as_json() for one in found.events], "complete": found.complete}
        return web.json_response(body)

    async def _steers(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"steers": self._steering is not None})

    async def _steer(self, request: web.Request) -> web.StreamResponse:
        if self._steering is None:
            return web.Response(status=403, text=READ_ONLY + "\n")
        if self._listener is not None and request.transport is not None:
            # The bus may need longer than a page's question may take; `Steering` has its own bound.
            self._listener.keep_open(request.transport)
        return await self._steering.answer(request)


async def _slash(request: web.Request) -> web.StreamResponse:
    raise web.HTTPPermanentRedirect(request.path.rpartition("/")[2] + "/")


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


async def _write(response: web.StreamResponse, event: bytes) -> None:
    async with asyncio.timeout(WRITE_S):
        await response.write(event)


async def _with_comments(updates: AsyncGenerator[Update]) -> AsyncGenerator[bytes]:
    """The updates as server-sent events, and a comment whenever none came for a while."""
    coming: asyncio.Future[Update] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(updates))
            done, _ = await asyncio.wait([coming], timeout=QUIET_S)
            if not done:
                yield b": nothing new\n\n"
                continue
            try:
                update, coming = coming.result(), None
            except StopAsyncIteration:
                return
            yield update.event
    finally:
        if coming is not None:
            await ended(coming)
