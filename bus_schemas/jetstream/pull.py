"""A continuous pull on one consumer: a request is always open, so a message needs no round trip of its own.

Detects what the client library hides, and raises instead of waiting: a request lost by a server restart (no heartbeat),
and a consumer that is gone (no responder, or the server reports it).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from types import TracebackType
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from bus_schemas.errors import BusAwayError, ConsumerGoneError
from bus_schemas.jetstream.api import away
from bus_schemas.jetstream.connect import Bus

BATCH = 100
EXPIRES_S = 30.0
HEARTBEAT_S = 10.0
"""Restarts, deletions and moves are reported by the server. Heartbeats find what remains, such as a killed server that
led the consumer while this client is connected to another one. 5,000 agents cost the server 500 heartbeats a second."""
MISSED_BEATS = 2.5


class PullInterruptedError(Exception):
    """`Pull.interrupt` was called: no further message is to be taken."""


class Pull:
    """``async with Pull(bus, stream, consumer) as pull: message = await pull.next()``."""

    def __init__(self, bus: Bus, stream: str, consumer: str, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._bus = bus
        self._api = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._consumer = consumer
        self.heartbeat_s = heartbeat_s
        request = {
            "batch": BATCH,
            "expires": int(EXPIRES_S * 1e9),
            "idle_heartbeat": int(heartbeat_s * 1e9),
        }
        self._request = json.dumps(request).encode()
        self._queue: asyncio.Queue[Msg | Exception] = asyncio.Queue()
        self._client: Client = bus.nc
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._left = 0
        self.last_sign_s = asyncio.get_running_loop().time()
        """When anything arrived last, on the loop's clock."""
        self._watchdog: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._client = self._bus.nc
        self._inbox = self._client.new_inbox()
        queue, loop = self._queue, asyncio.get_running_loop()

        async def on_message(message: Msg) -> None:
            self.last_sign_s = loop.time()
            queue.put_nowait(message)

        try:
            self._subscription = await self._client.subscribe(self._inbox, cb=on_message)
        except (NatsError, OSError) as error:
            raise away(self._bus, self._inbox, error) from error
        self._bus.on_reconnect.add(self._wake)
        self._watch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.on_reconnect.discard(self._wake)
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._subscription is not None:
            with suppress(NatsError, OSError):
                await self._subscription.unsubscribe()

    def _watch(self) -> None:
        """Queue an error once nothing arrived for `MISSED_BEATS`: cheaper than a time-out around each message."""
        loop, patience_s = asyncio.get_running_loop(), self.heartbeat_s * MISSED_BEATS
        now_s = loop.time()
        if now_s >= self.last_sign_s + patience_s:
            self._queue.put_nowait(away(self._bus, self._api))
            self.last_sign_s = now_s
        self._watchdog = loop.call_at(self.last_sign_s + patience_s, self._watch)

    def _wake(self) -> None:
        self._queue.put_nowait(BusAwayError(f"{self._api}: the connection was lost"))

    def interrupt(self) -> None:
        """Make `next` raise PullInterruptedError once what was delivered before is taken."""
        self._queue.put_nowait(PullInterruptedError())

    async def next(self) -> Msg:
        """The next message, as long as it takes.

        Raises ConsumerGoneError, PullInterruptedError, BusAwayError for a lost request.
        """
        while True:
            if self._left <= 0:
                await self._ask()
            message = await self._queue.get()
            if isinstance(message, Exception):
                raise message
            if message.reply.startswith("$JS.ACK."):
                self._left -= 1
                return message
            headers = message.headers or {}
            if "Status" in headers:
                self._apply_status(headers["Status"], headers.get("Description", ""))

    async def _ask(self) -> None:
        if self._bus.nc is not self._client or not self._client.is_connected:
            raise BusAwayError(f"{self._api}: not connected")
        try:
            await self._client.publish(self._api, self._request, reply=self._inbox)
        except (NatsError, OSError) as error:
            raise away(self._bus, self._api, error) from error
        self._left = BATCH

    def _apply_status(self, status: str, description: str) -> None:
        """Act on a status message about our request. 100: a heartbeat. 404, 408: the request ended, another follows.

        Raises ConsumerGoneError, BusAwayError.
        """
        if status == "100":
            return
        if status == "503" or "Deleted" in description or "Not Found" in description:
            raise ConsumerGoneError(f"consumer {self._consumer}: {description.strip() or 'no responder'}")
        if status in ("404", "408"):
            self._left = 0
            return
        # 409 and others: leadership moved, the server is closing, too many requests are waiting.
        raise BusAwayError(f"{self._api}: {status} {description}")
