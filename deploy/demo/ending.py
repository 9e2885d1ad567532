"""How a run ends: the first interrupt ends it in order, and within two seconds it has ended, whatever a part does.

A thread keeps the time, because what does not end may be the event loop itself. It only removes what would be left
behind: the server, temporary folders, and the record of where the run listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

LONGEST_S = 1.7
"""From the interrupt until a run that has not ended in order is ended, with some time to remove what it left."""
INTERRUPTED = 130
SHOW_CURSOR = "\x1b[?25h"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunEnd:
    """The end of one run. ``stop`` is set by the first interrupt. Make it on the main thread, on the run's loop."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.report = ""
        """What is printed in the end, once it is known."""
        self.removals: list[Callable[[], None]] = []
        """Called in order where the run is ended by force."""
        self._loop = asyncio.get_running_loop()
        self._since_s: float | None = None
        self._ended = threading.Lock()
        # Not the loop's own handlers: those wait until the loop is free.
        for number in SIGNALS:
            signal.signal(number, self._interrupted)

    @property
    def in_haste_s(self) -> float:
        """Seconds since the interrupt; 0 without one."""
        return 0.0 if self._since_s is None else time.monotonic() - self._since_s

    def in_order(self) -> None:
        """Must be called when everything has ended; afterwards nothing is ended by force."""
        if not self._ended.acquire(blocking=False):
            # The thread is ending the process at this moment.
            time.sleep(LONGEST_S)

    def _interrupted(self, _: int, __: FrameType | None) -> None:
        if self._since_s is None:
            self._since_s = time.monotonic()
            timer = threading.Timer(LONGEST_S, self._by_force)
            timer.daemon = True
            timer.start()
        with contextlib.suppress(RuntimeError):  # the loop is closed: everything has ended already
            self._loop.call_soon_threadsafe(self.stop.set)

    def _by_force(self) -> None:
        if not self._ended.acquire(blocking=False):
            return
        for remove in self.removals:
            with contextlib.suppress(OSError):
                remove()
        with contextlib.suppress(OSError, ValueError):
            if sys.stdout.isatty():
                print(SHOW_CURSOR, end="")
            if self.report:
                print(self.report)
            print("wattscale: a part did not stop in time, and was ended", file=sys.stderr)
            sys.stdout.flush()
        os._exit(0 if self.report else INTERRUPTED)
