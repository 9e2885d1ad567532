"""The messages of one subject, as they come, beginning with the newest that the stream holds."""

from __future__ import annotations

from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.msg import Msg

from bus_schemas.errors import BusAwayError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import last, stored
from bus_schemas.v1 import Message


class SubjectFeed:
    """``take`` is called with each readable message. Call `subscribe` again and again: it follows a replaced client."""

    def __init__(self, bus: Bus, subject: str, take: Callable[[Message], None]) -> None:
        self._bus, self._subject, self._take = bus, subject, take
        self._client: Client | None = None
        self._received = 0

    async def subscribe(self) -> bool:
        """Subscribe on the bus's present client, where this is not done yet. Whether it was done now.

        Raises BusAwayError, NatsError and OSError; the next call begins anew.
        """
        client, before = self._bus.nc, self._received
        if self._client is client or not self._bus.connected:
            return False
        subscription = await client.subscribe(self._bus.subjects.stored(self._subject), cb=self._receive)
        try:
            found = await last(self._bus, self._subject)
        except BusAwayError:
            await subscription.unsubscribe()
            raise
        if found is not None and self._received == before:
            self._take(found.message)
        self._client = client
        return True

    async def _receive(self, raw: Msg) -> None:
        self._received += 1
        found = stored(raw)
        if found is not None:
            self._take(found.message)
