"""Virtual time: a heap of calls to make, ties broken by the order in which they were scheduled.

Used instead of simpy because the plant spends its time on events. A chain of 300,000 random timers, 200 of
them pending (Python 3.11, one core, best of nine runs in alternation): 1.2 million events a second here, with simpy
4.1 0.7 million as callbacks and 0.6 million as processes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Events:
    """The plant's clock. ``now_s`` only moves forward, and only through ``run_until``."""

    __slots__ = ("_heap", "_sequence", "count", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self.count = 0
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._sequence = 0

    def at(self, when_s: float, what: Callable[[Any], None], argument: Any = None) -> None:
        """Call ``what(argument)`` at ``when_s``, or now if that has passed.

        Calls cannot be cancelled: one that is obsolete must detect it (workers carry a version).
        """
        self._sequence += 1
        heapq.heappush(self._heap, (when_s, self._sequence, what, argument))

    def ticket(self) -> int:
        """A number that is unique within this clock."""
        self._sequence += 1
        return self._sequence

    def run_until(self, until_s: float) -> None:
        """Make all calls due up to and including ``until_s``."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until_s:
            when_s, _, what, argument = pop(heap)
            if when_s > self.now_s:
                self.now_s = when_s
            self.count += 1
            what(argument)
        self.now_s = max(self.now_s, until_s)

    @property
    def next_s(self) -> float:
        """The instant of the next call; infinity when none is left."""
        return self._heap[0][0] if self._heap else float("inf")
