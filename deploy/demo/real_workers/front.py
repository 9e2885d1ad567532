"""One address for all workers: passes each request to the least loaded worker that is ready, and streams its answer.

A request that no worker has begun to answer goes to another one where its worker leaves or dies. Must never repeat a
request of whose answer the client has a part: that stream is cut off, as a frontend's would be.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from deploy.demo.real_workers.front_metrics import FrontMetrics
from deploy.demo.real_workers.ready_workers import ReadyWorker, ReadyWorkers
from deploy.engine.engine_app import LARGEST_BODY, METRICS_TEXT
from deploy.engine.openai_responses import error_body

LONGEST_WAIT_S = 120.0
"""How long a request waits for a worker."""
POLL_S = 0.05
BACKLOG = 2048
DONE = b"[DONE]"


class Front:
    """The front of one deployment. Use as an async context manager; then ``url`` is its address."""

    def __init__(self, endpoints_file: Path, model: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.metrics = FrontMetrics(model)
        self.url = ""
        self._workers = ReadyWorkers(endpoints_file)
        self._clock = clock
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Front:
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_post("/v1/completions", self._ask)
        app.router.add_post("/v1/chat/completions", self._ask)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        # No pool of connections: one to a worker that has left would fail a request that nothing is wrong with.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), connector=connector)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=BACKLOG).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _health(self, _: web.Request) -> web.Response:
        ready = len(self._workers.now())
        return web.Response(text=f"{ready} workers\n", status=200 if ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        page = await self.metrics.page(self._open, self._workers.now())
        return web.Response(body=page, headers={"Content-Type": METRICS_TEXT})

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        arrived_s = self._clock()
        try:
            body = await request.json()
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            return _refused(400, f"the body is not JSON: {error}")
        if not isinstance(body, dict):
            return _refused(400, "the body is not an object")
        self.metrics.started.inc()
        exchange = _Exchange(request, body, arrived_s, self.metrics, self._clock)
        with exchange.queued():
            return await self._answered(exchange)

    async def _answered(self, exchange: _Exchange) -> web.StreamResponse:
        tried: set[str] = set()
        while True:
            worker = await self._next(tried, exchange.arrived_s + LONGEST_WAIT_S)
            if worker is None:
                return _refused(503, f"no worker took the request within {LONGEST_WAIT_S:g} s")
            with self._workers.counted(worker):
                response = await exchange.attempt(self._open, worker)
            if response is not None:
                return response
            tried = {worker.worker}
            await asyncio.sleep(POLL_S)

    async def _next(self, tried: set[str], until_s: float) -> ReadyWorker | None:
        """A worker, another one than was tried where there is one; None where none came in time."""
        while True:
            found = self._workers.least_loaded(tried) or self._workers.least_loaded(())
            if found is not None or self._clock() >= until_s:
                return found if self._clock() < until_s else None
            await asyncio.sleep(POLL_S)

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("open the front first")
        return self._session


class _Queued:
    """A request counts as queued until its first token, or its end."""

    def __init__(self, metrics: FrontMetrics) -> None:
        self._metrics = metrics
        self._counts = False

    def __enter__(self) -> None:
        self._counts = True
        self._metrics.queued.inc()

    def leave(self) -> None:
        if self._counts:
            self._counts = False
            self._metrics.queued.dec()

    def __exit__(self, *_: object) -> None:
        self.leave()


class _Exchange:
    """One request, its answer, and the times of both."""

    def __init__(
        self,
        request: web.Request,
        body: dict[str, Any],
        arrived_s: float,
        metrics: FrontMetrics,
        clock: Callable[[], float],
    ) -> None:
        self.arrived_s = arrived_s
        self._request = request
        self._metrics = metrics
        self._clock = clock
        self._waiting = _Queued(metrics)
        options = body.get("stream_options")
        self._shows_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        # The usage is always asked for: it says how long prompt and answer were.
        wanted = {"include_usage": True}
        self._body = {**body, "stream_options": wanted} if body.get("stream") else body
        self._last_s = 0.0

    def queued(self) -> _Queued:
        """Count the request as queued for the body, until its first token."""
        return self._waiting

    async def attempt(self, session: aiohttp.ClientSession, worker: ReadyWorker) -> web.StreamResponse | None:
        """The answer of one worker; None where it gave none, and another may be asked."""
        begun: list[web.StreamResponse] = []
        try:
            async with session.post(worker.url + self._request.path, json=self._body) as answer:
                if answer.status == 503:
                    return None
                if answer.status != 200 or not self._body.get("stream"):
                    return await self._whole(answer)
                return await self._streamed(answer, begun)
        except (aiohttp.ClientError, OSError):
            if begun and self._request.transport is not None:
                self._request.transport.close()
            return begun[0] if begun else None

    async def _whole(self, answer: aiohttp.ClientResponse) -> web.Response:
        content = await answer.read()
        if answer.status == 200:
            now_s = self._clock()
            self._metrics.ttft_s.observe(now_s - self.arrived_s)
            self._metrics.ended(now_s - self.arrived_s, json.loads(content).get("usage") or {})
        return web.Response(body=content, status=answer.status, headers={"Content-Type": "application/json"})

    async def _streamed(self, answer: aiohttp.ClientResponse, begun: list[web.StreamResponse]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": answer.headers["Content-Type"]})
        usage: dict[str, Any] = {}
        async for line in answer.content:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            event = {} if data == DONE else json.loads(data)
            usage = event.get("usage") or usage
            if event.get("choices"):
                self._token()
            elif event and not self._shows_usage:
                continue
            if not begun:
                begun.append(response)
                await response.prepare(self._request)
            await response.write(b"data: " + data + b"\n\n")
        if not usage:
            raise aiohttp.ClientPayloadError("a stream that ended without its usage")
        self._metrics.ended(self._clock() - self.arrived_s, usage)
        await response.write_eof()
        return response

    def _token(self) -> None:
        now_s = self._clock()
        if self._last_s:
            self._metrics.itl_s.observe(now_s - self._last_s)
        else:
            self._metrics.ttft_s.observe(now_s - self.arrived_s)
            self._waiting.leave()
        self._last_s = now_s


def _refused(status: int, text: str) -> web.Response:
    kind = "BadRequestError" if status == 400 else "ServiceUnavailableError"
    return web.json_response(error_body(text, kind, None, status), status=status)
