"""The listener of both interfaces: GET only, one request per connection, limits on both, and TLS that can be renewed.

It accepts connections itself: asyncio's server shows one only after its handshake, and silent ones must count too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response
from aiohttp.web_server import Server

from agent.core.scaling.autoscaler.external_metrics import MetricRefusedError, status_of

log = logging.getLogger(__name__)
REQUEST_S, HANDSHAKE_S, SHUTDOWN_S, ACCEPT_PAUSE_S = 25.0, 5.0, 1.0, 0.5
MAX_CONNECTIONS = 64
Answer = Callable[[BaseRequest], Awaitable[Mapping[str, Any]]]


class MetricListener:
    """Answers each GET with the JSON of ``answer``, which may raise MetricRefusedError. Port 0: the system chooses."""

    def __init__(self, answer: Answer, what: str, host: str, port: int) -> None:
        self._answer_json = answer
        self._what = what
        self._host, self._port = host, port
        self._tls: ssl.SSLContext | None = None
        self.refused = 0
        self.address = ""
        self.listening = asyncio.Event()
        """Set once ``address`` can be reached."""

    def secure(self, tls: ssl.SSLContext) -> None:
        """Take these TLS settings for all connections from now on."""
        self._tls = tls

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError when the address cannot be bound."""
        requests = Server(self._answer, access_log=None, lingering_time=0.0)
        bound = await _bound(self._host, self._port)
        host, port = bound.getsockname()[:2]
        self.address = f"{host}:{port}"
        self.listening.set()
        log.info("serving %s on %s", self._what, self.address)
        opening: set[asyncio.Task[None]] = set()
        try:
            while True:
                connection = await _accepted(bound)
                # Before the handshake too: whoever sends nothing holds a place, and no more than these.
                if len(opening) + len(requests.connections) >= MAX_CONNECTIONS:
                    connection.close()
                    continue
                task = asyncio.create_task(self._open(connection, requests))
                opening.add(task)
                task.add_done_callback(opening.discard)
        finally:
            bound.close()
            for task in opening:
                task.cancel()
            await asyncio.gather(*opening, return_exceptions=True)
            await requests.shutdown(SHUTDOWN_S)

    async def _open(self, connection: socket.socket, requests: Server) -> None:
        loop = asyncio.get_running_loop()
        tls = self._tls
        handshake_s = None if tls is None else HANDSHAKE_S
        try:
            transport, _ = await loop.connect_accepted_socket(
                requests, connection, ssl=tls, ssl_handshake_timeout=handshake_s
            )
        except OSError as error:
            log.debug("a connection to %s is not opened: %s", self._what, error)
            return
        # aiohttp has no time-out of its own for a request that is half sent.
        loop.call_later(REQUEST_S, transport.abort)

    async def _answer(self, request: BaseRequest) -> Response:
        status, body = 200, dict[str, Any]()
        try:
            body = dict(await self._only_get(request))
        except MetricRefusedError as refused:
            self.refused += 1
            log.debug("%s: %s: %s", request.path, refused.status, refused)
            status, body = refused.status, dict(status_of(refused))
        response = Response(body=json.dumps(body).encode(), status=status, content_type="application/json")
        response.force_close()
        return response

    async def _only_get(self, request: BaseRequest) -> Mapping[str, Any]:
        if request.method != "GET":
            raise MetricRefusedError(405, "MethodNotAllowed", "only GET")
        return await self._answer_json(request)


async def _accepted(bound: socket.socket) -> socket.socket:
    while True:
        try:
            connection, _ = await asyncio.get_running_loop().sock_accept(bound)
        except OSError as error:  # All files of the process are open: some are closed in a moment.
            log.warning("a connection cannot be accepted: %s", error)
            await asyncio.sleep(ACCEPT_PAUSE_S)
        else:
            return connection


async def _bound(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    (family, kind, protocol, _, address), *_ = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(MAX_CONNECTIONS)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return bound
