"""Follows a bus while a page is open, and numbers what changed, so that a viewer that was away reads on from there.

Publishes nothing. Without a viewer it follows nothing: a planner that serves the page pays only while one is open.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bus_schemas import v1
from bus_schemas.errors import BusError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.task_group import ended, run_together
from bus_schemas.jetstream.watch import follow
from deploy.dashboard.decision_reader import DecisionReader
from deploy.dashboard.document import Changes, Document
from deploy.dashboard.fleet_reader import FleetReader
from deploy.dashboard.history import happenings, newest_of
from deploy.dashboard.shared_reports import Share, SharedReports
from deploy.dashboard.timeline import TimelineEvent, milliseconds
from deploy.views.bus_reader import budget_commands, read_leadership

log = logging.getLogger(__name__)

UPDATE_S = 1.0
LEADERSHIP_S = 2.0
KEPT_UPDATES = 120
KEPT_BYTES = 16 << 20
KEPT_EVENTS = 400
PAST = timedelta(hours=1)
FEW_NODES = 32
"""With more nodes than this the timeline begins with a shorter past of watts: it would be a million messages."""
UNWATCHED_S = 30.0
"""How long the bus is followed after the last viewer left: a reload or a short outage must not start anew."""
BEHIND = 32
"""Updates that a viewer may be behind; then it is cut off, and begins again with everything."""
RETRY_S = 1.0
WATCHED_S = 0.25
FLEET = ("telemetry", "node")
ACKS = ("ack",)
DECISIONS = ("decision",)
FOLLOWED = (DECISIONS, ACKS, ("telemetry", "plan"), ("control",))


@dataclass(frozen=True, slots=True)
class Update:
    """One server-sent event: its id, its name, and its data as one line of JSON."""

    number: int
    name: str
    data: str
    event: bytes = b""
    """As it goes to a browser, encoded once for all of them."""


@dataclass(eq=False, slots=True)
class Viewer:
    """One open page. ``queue`` ends with None where the viewer is too slow or the feed begins anew."""

    queue: asyncio.Queue[Update | None] = field(default_factory=lambda: asyncio.Queue(BEHIND))
    receiving: bool = False


class Feed:
    """``document``: what is shown now; ``run`` keeps it current while there are viewers.

    ``share``: of a planner in this process, which takes in reports and acknowledgements anyway, and writes decisions.
    """

    def __init__(
        self, bus: Bus, *, update_s: float = UPDATE_S, unwatched_s: float = UNWATCHED_S, share: Share | None = None
    ) -> None:
        self.bus = bus
        self._share = share
        self._update_s = update_s
        self._unwatched_s = unwatched_s
        self._viewers: set[Viewer] = set()
        self._watched = asyncio.Event()
        self._reset()

    def _reset(self) -> None:
        self.document = Document()
        self._boot, self._number = uuid.uuid4().hex[:8], 0
        self._kept: deque[Update] = deque()
        self._kept_bytes = 0
        self._whole: Update | None = None
        self._fleet = FleetReader(self.bus, self.document.add, self._update_s)
        self._shared = SharedReports(self.document.add, self._update_s)
        self._decisions = DecisionReader(self.bus, self.document.add, self.document.knows, self._update_s)
        self._events: dict[str, deque[TimelineEvent]] = {}
        self._begun = asyncio.Event()
        self._loaded, self._trouble = False, ""
        self._away_since: datetime | None = None

    @property
    def viewers(self) -> int:
        """How many pages are open."""
        return len(self._viewers)

    def event_id(self, update: Update) -> str:
        """The id under which a viewer reads on; of another process' feed it is not known."""
        return f"{self._boot}-{update.number}"

    async def run(self) -> None:
        """Follow the bus while there are viewers, until cancelled."""
        while True:
            await self._watched.wait()
            following = asyncio.create_task(self._follow())
            try:
                await self._until_unwatched(following)
            finally:
                await ended(following)
            if not following.cancelled():
                log.warning("the dashboard reads the bus again from the start: %s", following.exception())
                await asyncio.sleep(RETRY_S)
            self._begin_anew()

    async def _follow(self) -> None:
        await run_together({"updates": self._publish(), "reader": self._read()})

    async def _until_unwatched(self, following: asyncio.Task[None]) -> None:
        """Wait until no viewer was there for a while, or until the reader ended."""
        loop = asyncio.get_running_loop()
        seen_s = loop.time()
        while not following.done() and (self._viewers or loop.time() - seen_s < self._unwatched_s):
            await asyncio.wait([following], timeout=WATCHED_S)
            seen_s = loop.time() if self._viewers else seen_s

    def _begin_anew(self) -> None:
        for viewer in self._viewers:
            _cut(viewer)
        if not self._viewers:
            self._watched.clear()
        self._reset()

    async def watch(self, last_event_id: str) -> AsyncGenerator[Update]:
        """What a viewer shows: everything, or what is new since ``last_event_id``; ends where it must connect again."""
        viewer = Viewer()
        self._viewers.add(viewer)
        self._watched.set()
        try:
            await self._begun.wait()
            viewer.receiving = True
            for missed in self._missed(last_event_id):
                yield missed
            while (update := await viewer.queue.get()) is not None:
                yield update
        finally:
            self._viewers.discard(viewer)

    def _missed(self, last_event_id: str) -> list[Update]:
        boot, _, number = last_event_id.rpartition("-")
        if boot == self._boot and number.isdigit():
            first = self._kept[0].number if self._kept else self._number + 1
            if first <= int(number) + 1 <= self._number + 1:
                return [update for update in self._kept if update.number > int(number)]
        return [self._everything()]

    def _everything(self) -> Update:
        if self._whole is not None and self._whole.number == self._number:
            return self._whole
        past = sorted((event for kind in self._events.values() for event in kind), key=lambda event: event.time)
        whole = Changes(self.document.parts, past)
        self._whole = self._update("everything", whole)
        return self._whole

    def _update(self, name: str, changes: Changes) -> Update:
        data = as_data(changes)
        event = f"id: {self._boot}-{self._number}\nevent: {name}\ndata: {data}\n\n"
        return Update(self._number, name, data, event.encode())

    async def _publish(self) -> None:
        """Send what changed to every viewer, once in a while; one that does not read is cut off."""
        while True:
            if self._loaded:
                self._decisions.drain()
                await self._shared.drain()
            self._send(datetime.now(UTC))
            self._begun.set()
            await asyncio.sleep(self._update_s)

    def _send(self, now: datetime) -> None:
        found = self.document.changes(now, bus=self._bus_state(now))
        if not found:
            return
        for event in found.events:
            # By kind: power decisions are many, and must not push out those about replicas.
            self._events.setdefault(event.kind, deque(maxlen=KEPT_EVENTS)).append(event)
        self._number += 1
        update = self._update("changes", found)
        self._whole = None
        self._keep(update)
        for viewer in [one for one in self._viewers if one.receiving]:
            try:
                viewer.queue.put_nowait(update)
            except asyncio.QueueFull:
                self._viewers.discard(viewer)
                _cut(viewer)

    def _keep(self, update: Update) -> None:
        self._kept.append(update)
        self._kept_bytes += len(update.data)
        while len(self._kept) > KEPT_UPDATES or self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft().data)

    def _bus_state(self, now: datetime) -> dict[str, Any]:
        """How the connection is: the page says since when it shows the past."""
        connected = self.bus.connected and not self._trouble
        self._away_since = None if connected else self._away_since or now
        return {
            "connected": connected,
            "since": None if self._away_since is None else milliseconds(self._away_since),
            "trouble": self._trouble or self.bus.trouble,
            "read": self._loaded,
        }

    async def _read(self) -> None:
        """Load what the streams hold, then follow; again where the bus was away while it was read."""
        # Shared from before the streams are read, so that nothing falls between.
        with nullcontext() if self._share is None else self._share(self._note):
            while True:
                try:
                    await self.bus.ready()
                    ends = await self._load()
                    break
                except BusError as error:
                    self._trouble = str(error)
                    await asyncio.sleep(RETRY_S)
            self._trouble, self._loaded = "", True
            if self._share is None:
                parts = {"fleet": self._fleet.run()}
            else:
                parts = {"decisions": self._decisions.run(ends.pop(self.bus.subjects.all_of(*DECISIONS)))}
            parts |= {wildcard: self._fold(wildcard, after) for wildcard, after in ends.items()}
            await run_together({**parts, "leadership": self._leadership()})

    def _note(self, message: v1.Message, sequence: int) -> None:
        """Keep what the planner in this process took in or published until it is shown."""
        match message:
            case v1.NodeTelemetry() | v1.PowerAck() | v1.ScalingAck():
                self._shared.note(message, sequence)
            case v1.PowerDecision() | v1.ScalingDecision():
                self._decisions.note(message, sequence)

    async def _load(self) -> dict[str, int]:
        """Fill a new document; for each wildcard the sequence after which to follow."""
        ends, now = dict[str, int](), datetime.now(UTC)
        for kind in (*FOLLOWED, FLEET):
            found, end = await newest_of(self.bus, *kind)
            if kind == FLEET:
                self._fleet.known({stored.subject: stored.sequence for stored in found})
            elif kind == ACKS and self._share is not None:
                self._shared.loaded(found)
            else:
                ends[self.bus.subjects.all_of(*kind)] = end
            for stored in found:
                self.document.add(stored.message, is_new=False)
                await asyncio.sleep(0)
        self.document.replace_commands(await budget_commands(self.bus))
        await read_leadership(self.bus, self.document.picture)
        share = min(1.0, FEW_NODES / max(1, len(self.document.picture.nodes)))
        past = await happenings(self.bus, now - PAST, now, KEPT_EVENTS, watts_since=now - PAST * share)
        self.document.add_past(past.events)
        return ends

    async def _fold(self, wildcard: str, after: int) -> None:
        async for stored in follow(self.bus, wildcard, after):
            self.document.add(stored.message)

    async def _leadership(self) -> None:
        while True:
            await asyncio.sleep(LEADERSHIP_S)
            with suppress(BusError):
                await read_leadership(self.bus, self.document.picture)


def as_data(changes: Changes) -> str:
    """The data of an update with these changes, as one line of JSON."""
    value = {
        "parts": changes.parts,
        "events": [event.as_json() for event in changes.events],
        "points": changes.points,
    }
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def _cut(viewer: Viewer) -> None:
    """End a viewer's stream after what it has: its page connects again."""
    with suppress(asyncio.QueueEmpty):
        while viewer.queue.full():
            viewer.queue.get_nowait()
    viewer.queue.put_nowait(None)
