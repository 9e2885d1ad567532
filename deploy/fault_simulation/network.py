"""The simulated network and clock: one queue of events, links that lose, duplicate, delay, reorder and disconnect."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

Handler = Callable[[Any], None]
FOREVER_S = float("inf")
STORM = (0.15, 0.15, 3.0)
REDELIVERY_S = 12.0
PUNCTUAL_S = 0.3
"""A message slower than this makes its link count as disturbed."""


class EventQueue:
    """Virtual time: the next event by instant, then by order of arrival."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._queue: list[tuple[float, int, Handler, Any]] = []
        self._count = 0

    def at(self, time_s: float, handler: Handler, argument: Any = None) -> None:
        """Call ``handler(argument)`` at ``time_s``."""
        self._count += 1
        heapq.heappush(self._queue, (time_s, self._count, handler, argument))

    def after(self, delay_s: float, handler: Handler, argument: Any = None) -> None:
        """Call ``handler(argument)`` in ``delay_s``."""
        self._count += 1
        heapq.heappush(self._queue, (self.now_s + delay_s, self._count, handler, argument))

    def pop(self) -> tuple[Handler, Any]:
        """Go to the next event."""
        self.now_s, _, handler, argument = heapq.heappop(self._queue)
        return handler, argument


class Party:
    """A process at the end of a link, with a clock of its own, that can be down, stopped, or cut off.

    ``ok_since_s``: in order since then. ``rate``: speed of its clock. ``generation``: the number of its process.
    """

    name = "?"

    def __init__(self, timeline: EventQueue, rng: Random, rate: float = 1.0) -> None:
        self.timeline = timeline
        self.rng = rng
        self.rate = rate
        self.offset_s = rng.uniform(0.0, 1000.0)
        self.up = True
        self.stalled_until_s = 0.0
        self.parted = False
        self.ok_since_s = 0.0
        self.generation = 0

    @property
    def clock_s(self) -> float:
        """Its monotonic clock, in seconds."""
        return self.offset_s + self.timeline.now_s * self.rate

    def start(self) -> None:
        """Start a new process."""
        self.generation += 1
        self.up = True
        self.stalled_until_s = 0.0
        self.trouble()

    def crash(self) -> None:
        """End without notice, between any two steps."""
        self.generation += 1
        self.up = False
        self.trouble()

    def awake(self, handler: Handler, argument: object) -> bool:
        """Whether the process runs; while it is stopped, the call is repeated later."""
        if not self.up:
            return False
        if self.timeline.now_s < self.stalled_until_s:
            self.timeline.at(self.stalled_until_s + 0.001 * self.rng.random(), handler, argument)
            return False
        return True

    def trouble(self) -> None:
        """Record a disturbance: the party counts as in order only from now on."""
        ready = self.up and not self.parted
        self.ok_since_s = max(self.timeline.now_s, self.stalled_until_s) if ready else FOREVER_S

    def stall(self, for_s: float) -> None:
        """Stop the process while clocks go on: everything that arrives waits."""
        self.stalled_until_s = self.timeline.now_s + for_s
        self.trouble()

    def part(self, parted: bool) -> None:
        """Disconnect from the bus, or reconnect."""
        self.parted = parted
        self.trouble()


class Network:
    """Links between parties and the bus. A message reaches only the process that it was sent to, not its successor."""

    def __init__(self, timeline: EventQueue, rng: Random, counts: Counter[str], loss: float) -> None:
        self.timeline = timeline
        self.counts = counts
        self._random = rng.random
        self.calm = (loss, 0.04, 0.04)
        """Loss, duplication, and the longest delay in seconds, outside storms."""
        self.weather = self.calm

    def send(self, party: Party, handler: Handler, argument: Any) -> None:
        """Send a message between ``party`` and the bus, in either direction."""
        random = self._random
        loss, double, slowest_s = self.weather
        if party.parted or random() < loss:
            self.counts["message lost"] += 1
            party.trouble()
            return
        delay_s = 0.001 + slowest_s * random()
        if delay_s > PUNCTUAL_S:
            self.counts["message late"] += 1
            party.trouble()
        self.timeline.after(delay_s, handler, argument)
        if random() < double:
            self.counts["message doubled"] += 1
            # Usually right behind the first; sometimes as late as a redelivery by a consumer.
            late_s = slowest_s if random() < 0.5 else REDELIVERY_S
            self.timeline.after(delay_s + late_s * random(), handler, argument)
