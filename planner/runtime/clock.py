"""The planner's clock: UTC when the process starts, and from then on steady, whatever is done to the wall clock.

Leases, settle times and windows are durations: setting the wall clock must not stretch or end any of them.
Schedules and what goes out on the wire are instants of UTC: for them ``moved_s`` is how far the wall clock has been
set since.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_S = 1.0
"""The wall clock's drift is followed in steps of this size: less makes no difference to a schedule."""


class SteadyClock:
    """Call it for the present instant. ``wall`` reads UTC seconds, ``steady`` seconds that only rise."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._zero_s = wall() - steady()
        self._moved_s = 0.0

    def __call__(self) -> float:
        """Seconds, never set back or forward."""
        return self._zero_s + self._steady()

    def moved_s(self) -> float:
        """UTC minus this clock, by the last step of the wall clock; 0 until there was one."""
        moved_s = self._wall() - self()
        if abs(moved_s - self._moved_s) >= STEP_S:
            self._moved_s = moved_s
        return self._moved_s
