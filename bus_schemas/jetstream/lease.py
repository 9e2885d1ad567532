"""Leadership: one lease message with a time to live, renewed by its holder; its sequence is the epoch.

Never trusts a clock for safety: a holder that slept past its lease is refused by the server at its next batch.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from nats.errors import Error as NatsError

from bus_schemas import codec, v1
from bus_schemas.errors import LeadershipLost
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.read import Stored, last

__all__ = ["Leadership", "LeadershipLost"]

RENEWALS_PER_TTL = 3.0
RETRY_S = 0.25


class Leadership:
    """One planner's side of the lease. ``epoch`` is the sequence of its newest lease message, or None."""

    def __init__(self, bus: Bus, holder: str, ttl_s: float = 5.0) -> None:
        self._bus = bus
        self._holder = holder
        self._ttl_s = ttl_s
        self._epoch: int | None = None
        self._renewals = 0
        self._lock = asyncio.Lock()

    @property
    def epoch(self) -> int | None:
        return self._epoch

    @property
    def held(self) -> bool:
        return self._epoch is not None

    async def acquire(self) -> int:
        """Wait until the lease is free, take it, and return the epoch."""
        while True:
            found = await self._look()
            if found is None or self._may_take(found):
                epoch = await self._write(found.sequence if found else 0, renewals=0)
                if epoch is not None:
                    self._epoch, self._renewals = epoch, 0
                    return epoch
            # Bounded by the lease itself: the server removes it when its time to live is over.
            await asyncio.sleep(min(RETRY_S, self._ttl_s / 4))

    def _may_take(self, found: Stored) -> bool:
        return isinstance(found.message, v1.Lease) and (found.message.released or found.message.holder == self._holder)

    async def renew(self) -> int:
        """Write the next lease message; the new epoch. Raises LeadershipLost."""
        async with self._lock:
            if self._epoch is None:
                raise LeadershipLost("the lease is not held")
            epoch = await self._write(self._epoch, renewals=self._renewals + 1)
            if epoch is None:
                self._epoch = None
                raise LeadershipLost("another planner holds the lease, or it ran out")
            self._epoch, self._renewals = epoch, self._renewals + 1
            return epoch

    async def keep(self) -> None:
        """Renew a third of the way into each lease, until cancelled. Raises LeadershipLost."""
        while True:
            await asyncio.sleep(self._ttl_s / RENEWALS_PER_TTL)
            await self._renew_in_time()

    async def _renew_in_time(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._ttl_s
        while True:
            try:
                await self.renew()
            except (NatsError, TimeoutError, OSError) as error:
                if asyncio.get_running_loop().time() > deadline:
                    self._epoch = None
                    raise LeadershipLost(f"the lease could not be renewed: {error or type(error).__name__}") from error
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def release(self) -> None:
        """An orderly stop: whoever waits may lead at once. Does nothing when not held."""
        async with self._lock:
            if self._epoch is None:
                return
            epoch, self._epoch = self._epoch, None
            try:
                await self._write(epoch, renewals=self._renewals, released=True)
            except (NatsError, TimeoutError, OSError):
                return  # The time to live frees it.

    @asynccontextmanager
    async def steady(self) -> AsyncIterator[int]:
        """The epoch, which does not change inside: a renewal in between would make the server refuse a batch."""
        async with self._lock:
            if self._epoch is None:
                raise LeadershipLost("the lease is not held")
            yield self._epoch

    async def _look(self) -> Stored | None:
        try:
            return await last(self._bus, self._bus.subjects.lease())
        except (NatsError, TimeoutError, OSError):
            await asyncio.sleep(RETRY_S)
            return Stored("", 0, v1.Lease(time=datetime.now(UTC), holder="?", ttl_s=1), "")

    async def _write(self, expected: int, *, renewals: int, released: bool = False) -> int | None:
        lease = v1.Lease(
            time=datetime.now(UTC), holder=self._holder, ttl_s=self._ttl_s, renewals=renewals, released=released
        )
        msg_id = f"lease-{self._holder}-{expected}-{int(released)}"
        said = codec.headers(lease, msg_id, self._bus.settings.name)
        # Renewals reuse no id: the window would answer an old sequence for a new lease.
        del said["Nats-Msg-Id"]
        said |= {"Nats-Expected-Last-Subject-Sequence": str(expected), "Nats-TTL": f"{max(1, round(self._ttl_s))}s"}
        subject = self._bus.subjects.lease()
        try:
            reply = await self._bus.nc.request(subject, codec.encode(lease), timeout=self._ttl_s / 2, headers=said)
        except (NatsError, TimeoutError, OSError):
            mine = await last(self._bus, subject)
            if mine is not None and mine.sequence > expected and mine.msg_id == msg_id:
                return mine.sequence
            raise
        answer: dict[str, Any] = json.loads(reply.data or b"{}")
        return None if "error" in answer else int(answer["seq"])
