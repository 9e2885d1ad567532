"""Reads the nodes' newest reports in turn, at a rate that does not grow with the fleet's.

Every node reports about once a second. To take in each report of a thousand nodes would take a fifth of a core, and a
page of ten thousand GPUs shows no more for it: so the nodes are read one share after the other, as many a second as a
small site has, and all of them in a turn that is shorter than the time after which a node counts as silent.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from bus_schemas import v1
from bus_schemas.errors import BusError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import MOST_SUBJECTS, last_raw_of, sequence_of, stored, subjects_of

NODES_PER_S = 128
LONGEST_TURN_S = 10.0
"""With a report each second this stays below the 15 s after which a node counts as silent."""
DISCOVER_S = 10.0
"""How often nodes are looked for that report for the first time."""


def turn_s(nodes: int) -> float:
    """Seconds in which each of so many nodes is read once."""
    return min(LONGEST_TURN_S, nodes / NODES_PER_S)


class FleetReader:
    """``take`` gets every report that is new; ``step_s``: time between two shares."""

    def __init__(self, bus: Bus, take: Callable[[v1.Message], None], step_s: float) -> None:
        self._bus, self._take, self._step_s = bus, take, step_s
        self._wildcard = bus.subjects.all_of("telemetry", "node")
        self._subjects: Sequence[str] = ()
        self._sequences: dict[str, int] = {}
        self._next, self._discover_s = 0, float("-inf")

    def known(self, sequences: dict[str, int]) -> None:
        """These reports, by subject with their stream sequences, were taken in before."""
        self._sequences |= sequences

    async def run(self) -> None:
        """Read share after share, until cancelled; where the bus is away, again when it is back."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            try:
                await self._step(loop.time())
            except BusError:
                # What the connection lacks is shown by the feed, and the nodes' ages count up.
                self._discover_s = float("-inf")
            # By the clock, not after the step: a slow bus must not make the turn longer. Steps that are missed stay so.
            due_s = max(due_s + self._step_s, loop.time())
            await asyncio.sleep(due_s - loop.time())

    async def _step(self, now_s: float) -> None:
        if now_s - self._discover_s >= min(DISCOVER_S, turn_s(len(self._subjects))):
            self._subjects, self._discover_s = await subjects_of(self._bus, self._wildcard), now_s
        for subjects in self._share():
            for raw in await last_raw_of(self._bus, subjects):
                subject, sequence = (raw.headers or {}).get("Nats-Subject", raw.subject), sequence_of(raw)
                # Another one, not a higher one: a stream that was lost begins again at 1.
                if self._sequences.get(subject) != sequence and (found := stored(raw)) is not None:
                    self._sequences[subject] = sequence
                    self._take(found.message)
            await asyncio.sleep(0)

    def _share(self) -> list[Sequence[str]]:
        """The subjects whose turn it is, in lists that one request may name."""
        count = len(self._subjects)
        steps = max(1, round(turn_s(count) / self._step_s))
        size = math.ceil(count / steps)
        first = self._next if self._next < count else 0
        self._next = first + size
        share = self._subjects[first : first + size]
        return [share[start : start + MOST_SUBJECTS] for start in range(0, len(share), MOST_SUBJECTS)]
