"""Takes in the decisions on the bus, in a planner without reading its own back from it.

A planner that leads writes every decision of its stream, and knows each once the bus has stored it; to receive and
decode them again costs a large site more than all else of the page. So while this process decides, its decisions are
taken as it published them. Whether they are all is seen on the bus: every few seconds the end of the stream must be
the last of them, and what another planner wrote is read from the stream and followed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bus_schemas import v1
from bus_schemas.errors import BusError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import BATCH, last_raw, next_raw, sequence_of, stored
from bus_schemas.jetstream.tasks.task_group import ended
from bus_schemas.jetstream.watch import follow

Decision = v1.ScalingDecision | v1.PowerDecision
VERIFY_S = 2.0
MOST_WAITING = 20_000
"""Own decisions that wait for the page; of more, the stream is read instead."""


class DecisionReader:
    """``take`` gets every decision once, ``knows`` says whether it was given that one or a later one of its sender.

    ``step_s``: how often `drain` is called.
    """

    def __init__(
        self,
        bus: Bus,
        take: Callable[[v1.Message], None],
        knows: Callable[[Decision], bool],
        step_s: float,
        verify_s: float = VERIFY_S,
    ) -> None:
        self._bus, self._take, self._knows = bus, take, knows
        self._step_s, self._verify_s = step_s, verify_s
        self._wildcard = bus.subjects.all_of("decision")
        self._own: list[tuple[Decision, int]] = []
        self._epoch = -1
        self._came = asyncio.Event()
        self._at = 0
        """The place in the stream up to which everything was taken."""
        self._sure = False
        """Whether what this process publishes now follows what was taken, with nothing between."""
        self._doubts = 0

    def note(self, decision: Decision, place: int) -> None:
        """This process published a decision, and the bus stored it at ``place``; 0 where that is not known."""
        if not place or decision.epoch != self._epoch or len(self._own) >= MOST_WAITING:
            # Another planner may have decided in between: the stream is read from where it is known.
            self._epoch = decision.epoch
            self._doubt()
            self._own.clear()
        if place:
            self._own.append((decision, place))
        self._came.set()

    def _doubt(self) -> None:
        self._sure = False
        self._doubts += 1

    def drain(self) -> None:
        """Hand over what this process published since the last call."""
        if not self._sure:
            return
        own, self._own = self._own, []
        for decision, place in own:
            self._offer(decision)
            # What another planner wrote beyond it may have been read already.
            self._at = max(self._at, place)

    async def run(self, after: int) -> None:
        """Take in what comes after this place in the stream, until cancelled."""
        self._at = after
        while True:
            await self._follow_others()
            await self._watch_own()

    def _offer(self, message: v1.Message) -> None:
        if isinstance(message, Decision) and not self._knows(message):
            self._take(message)

    async def _follow_others(self) -> None:
        """Follow the stream until this process decides."""
        self._doubt()
        following = asyncio.create_task(self._follow())
        coming = asyncio.create_task(self._came.wait())
        try:
            await asyncio.wait([following, coming], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(following, coming)
        if not following.cancelled():
            following.result()

    async def _follow(self) -> None:
        async for one in follow(self._bus, self._wildcard, self._at):
            self._offer(one.message)
            self._at = one.sequence

    async def _watch_own(self) -> None:
        """See to it that nothing is missing, until another planner decides."""
        while True:
            try:
                if not self._sure:
                    await self._read_on()
                elif await self._another_decided():
                    self._came.clear()
                    return
            except BusError:
                self._doubt()
            await asyncio.sleep(self._verify_s if self._sure else self._step_s)

    async def _read_on(self) -> None:
        """Read what the stream holds beyond what was taken. Own decisions that it has are not taken again."""
        doubts = self._doubts
        while True:
            batch = await next_raw(self._bus, self._wildcard, self._at)
            for raw in batch:
                if (found := stored(raw)) is not None:
                    self._offer(found.message)
                self._at = max(self._at, sequence_of(raw))
            if len(batch) < BATCH:
                self._sure = doubts == self._doubts
                return

    async def _another_decided(self) -> bool:
        """Whether the stream ends with a decision that this process does not know as its own."""
        newest = await last_raw(self._bus, self._wildcard)
        end = 0 if newest is None else sequence_of(newest)
        if self._is_ours(end):
            return False
        # One of ours may have been stored a moment ago, its answer being on its way.
        await asyncio.sleep(self._step_s)
        return self._sure and not self._is_ours(end)

    def _is_ours(self, place: int) -> bool:
        return place == self._at or any(own == place for _, own in self._own)
