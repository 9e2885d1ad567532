"""The workers that take requests now, by the local connector's file, and which of them gets the next one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReadyWorker:
    """One worker that takes requests at ``url``."""

    worker: str
    pool: str
    url: str


class ReadyWorkers:
    """The workers named in ``endpoints_file``, and how many requests each has from here."""

    def __init__(self, endpoints_file: Path) -> None:
        self._file = endpoints_file
        self._in_flight: Counter[str] = Counter()

    def now(self) -> list[ReadyWorker]:
        """Those that take requests now. The file is replaced whole, so it is read each time; none before it exists."""
        try:
            found = json.loads(self._file.read_bytes())["workers"]
        except FileNotFoundError:
            return []
        return [ReadyWorker(one["worker"], one["pool"], one["url"]) for one in found]

    def least_loaded(self, without: Collection[str]) -> ReadyWorker | None:
        """The one with the fewest requests, but for those that are named in ``without``; None where there is none."""
        able = [one for one in self.now() if one.worker not in without]
        return min(able, key=lambda one: (self._in_flight[one.worker], one.worker), default=None)

    @contextmanager
    def counted(self, worker: ReadyWorker) -> Iterator[None]:
        """Count a request of this worker for the body."""
        self._in_flight[worker.worker] += 1
        try:
            yield
        finally:
            self._in_flight[worker.worker] -= 1
            if not self._in_flight[worker.worker]:
                del self._in_flight[worker.worker]
