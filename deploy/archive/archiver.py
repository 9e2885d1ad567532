"""Copies what the bus stores to day files, from where the files end. Creates nothing on the bus."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

from bus_schemas.errors import BusAwayError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import next_raw, sequence_of
from bus_schemas.streams import stream_of
from deploy.archive.day_files import ArchiveError, DayFiles
from deploy.report.bus_entries import KINDS, entry_of, streams_made

LATE = timedelta(minutes=10)
"""A day is packed this long after its end: a message may be read a little after it was stored."""
AGAIN = timedelta(minutes=10)
"""How long a day that could not be packed waits for the next try."""
log = logging.getLogger("wattscale.archive")


class Archiver:
    """Keeps what is new. ``kept``: messages since the start. Raises ArchiveError, OSError."""

    def __init__(
        self,
        bus: Bus,
        files: DayFiles,
        *,
        keep_days: int | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus, self._files, self._keep_days, self._now = bus, files, keep_days, now
        self._reached: dict[tuple[str, str], int] = {}
        """By stream and when it was made: the last sequence that is kept."""
        self._away = False
        self._flaw = ""
        self._pack_from = datetime.min.replace(tzinfo=UTC)
        self.kept = 0
        self._ending = threading.Event()

    def begin(self) -> None:
        """Mend the files and find where each stream goes on."""
        self._files.mend()
        self._reached = self._files.reached()

    async def run(self, every_s: float, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Copy, pack and drop again and again until cancelled. Survives a bus that is away."""
        while True:
            try:
                await self.copy()
                if self._away:
                    log.warning("the bus is back")
                self._away = False
            except BusAwayError as error:
                if not self._away:
                    log.warning("the bus is away, and what it drops meanwhile will be missing: %s", error)
                self._away = True
            await self._whole(self.tidy)
            await pause(every_s)

    async def _whole(self, work: Callable[[], None]) -> None:
        """Run work on files in a thread, to its end even where this is cancelled: nobody else may write meanwhile."""
        running = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            self._ending.set()
            while not running.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
            if not running.cancelled() and (error := running.exception()) is not None:
                log.warning("while it ended: %s", error)
            raise

    async def copy(self) -> int:
        """Keep everything that the bus holds and the files do not; returns how many messages. Raises BusAwayError."""
        made = await streams_made(self._bus)
        copied = 0
        for kind in KINDS:
            wildcard = self._bus.subjects.all_of(*kind)
            stream = stream_of(self._bus.subjects, wildcard)
            key = (stream, made[stream])
            while page := await next_raw(self._bus, wildcard, self._reached.get(key, 0)):
                batch = [entry_of(each, made) for each in page]
                await self._whole(functools.partial(self._files.append, batch))
                self._reached[key] = sequence_of(page[-1])
                copied += len(page)
        self.kept += copied
        return copied

    def tidy(self) -> None:
        """Pack the days that are over, and drop those that are too old, by the clock and by the newest message kept."""
        today = (self._now() - LATE).date()
        if self._now() >= self._pack_from:
            self._pack(day for day in self._files.unpacked() if day < today)
        days = self._files.days()
        if self._keep_days is not None and days and not self._ending.is_set():
            # A clock that jumps ahead must not make everything old.
            for day in self._files.drop(min(today, days[-1]) - timedelta(days=self._keep_days)):
                log.info("dropped %s", day)

    def _pack(self, days: Iterable[date]) -> None:
        """Without duckdb, or without room, days stay lines: that must not end the copying, which cannot be made up."""
        for day in days:
            if self._ending.is_set():
                return
            try:
                self._files.pack(day)
            except (ArchiveError, OSError) as error:
                if str(error) != self._flaw:
                    log.warning("days stay JSON lines: %s", error)
                self._flaw, self._pack_from = str(error), self._now() + AGAIN
