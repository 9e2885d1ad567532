"""Runs ``wattscale`` with the steps of its page metered: the processor time of each, by the thread's own clock.

What other processes do on the machine does not change it, but for what they push out of the caches. Left out is what
the page costs beyond its own steps: noting what the planner takes in, letting go of it, the collector, the client's
parsing of what is followed for it. FILE holds the seconds so far as a number. Run:
``python -m tests.benchmarks.dashboard.metered_planner FILE COMMAND…``.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.cli.main import main
from deploy.dashboard.decision_reader import DecisionReader
from deploy.dashboard.feed import Feed
from deploy.dashboard.page_server import DashboardServer

STEPS = (
    (Feed, "_publish"),
    (Feed, "_load"),
    (Feed, "_fold"),
    (Feed, "_leadership"),
    (DecisionReader, "_follow"),
    (DecisionReader, "_watch_own"),
    (DashboardServer, "_events"),
)


class StepMeter:
    """Adds up the processor time of the coroutines that it wraps, and keeps the sum in a file."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT)
        self._sum_s = 0.0

    def metered(self, function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        """The same function, each step of its coroutines timed."""

        @functools.wraps(function)
        async def timed(*args: Any, **kwargs: Any) -> Any:
            return await MeteredSteps(function(*args, **kwargs), self)

        return timed

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time what is done inside."""
        began_s = time.thread_time()
        try:
            yield
        finally:
            self._sum_s += time.thread_time() - began_s
            os.pwrite(self._file, struct.pack("d", self._sum_s), 0)


class MeteredSteps(Generator[Any, Any, Any]):
    """Awaits a coroutine step by step."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], meter: StepMeter) -> None:
        self._coroutine, self._meter = coroutine, meter

    def __await__(self) -> MeteredSteps:
        return self

    def send(self, value: Any) -> Any:
        """Go on to the next wait."""
        with self._meter.step():
            return self._coroutine.send(value)

    def throw(self, *raised: Any) -> Any:
        """Go on with an exception, such as a cancellation."""
        with self._meter.step():
            return self._coroutine.throw(*raised)


def page_s(file: Path) -> float:
    """Processor seconds of the page's steps so far; 0 before the first."""
    found = file.read_bytes() if file.exists() else b""
    return float(struct.unpack("d", found)[0]) if found else 0.0


if __name__ == "__main__":
    meter = StepMeter(Path(sys.argv[1]))
    for owner, name in STEPS:
        setattr(owner, name, meter.metered(getattr(owner, name)))
    sys.exit(main(sys.argv[2:]))
