"""Records of finished requests, in columns: 300,000 of them fit in a few megabytes."""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.sim.cluster.job import Job


class RequestRecord(NamedTuple):
    """One finished request. Milliseconds for latencies, seconds of the plant's clock for instants."""

    number: int
    """Number of its arrival, from 0."""
    t_s: float
    isl: int
    osl: int
    ttft_ms: float
    itl_ms: float
    """Mean gap between its tokens; 0 for a request of one token."""
    prefill_wait_ms: float
    decode_wait_ms: float
    """From the end of the prefill to admission to a batch, transfer included."""
    finished_s: float
    preemptions: int
    stall_ms: float
    """Longest gap between two of its tokens; 0 for a request of one token."""


def record_of(job: Job, now_s: float) -> RequestRecord:
    """The record of a job that has just finished."""
    itl_ms = (now_s - job.first_s) * 1000.0 / (job.osl - 1) if job.osl > 1 else 0.0
    return RequestRecord(
        job.index,
        job.t_s,
        job.isl,
        job.osl,
        (job.first_s - job.t_s) * 1000.0,
        max(itl_ms, 0.0),
        (job.prefill_start_s - job.t_s) * 1000.0,
        (job.admitted_s - job.prefill_end_s) * 1000.0,
        now_s,
        job.preemptions,
        job.longest_gap_s * 1000.0 if job.osl > 1 else 0.0,
    )


class RequestCounts:
    """Finished and good requests in two numbers, for a run without an end: kept records would fill the memory."""

    __slots__ = ("_finished", "_good", "_itl_ms", "_ttft_ms")

    def __init__(self, ttft_ms: float, itl_ms: float) -> None:
        self._ttft_ms, self._itl_ms = ttft_ms, itl_ms
        self._finished = self._good = 0

    def add(self, job: Job, now_s: float) -> RequestRecord:
        """Count a finished job and return its record."""
        record = record_of(job, now_s)
        self._finished += 1
        self._good += record.ttft_ms <= self._ttft_ms and record.itl_ms <= self._itl_ms
        return record

    def __len__(self) -> int:
        return self._finished

    def good(self, ttft_ms: float, itl_ms: float) -> int:
        """Number of requests that met both targets. Raises ValueError for other targets than those counted by."""
        if (ttft_ms, itl_ms) != (self._ttft_ms, self._itl_ms):
            raise ValueError(f"requests were counted by targets of {self._ttft_ms:g} and {self._itl_ms:g} ms")
        return self._good


class Records:
    """Finished requests, in the order in which they finished."""

    __slots__ = ("_columns",)

    def __init__(self) -> None:
        self._columns = tuple(array("q" if name in _WHOLE else "d") for name in RequestRecord._fields)

    def add(self, job: Job, now_s: float) -> RequestRecord:
        """Append a finished job and return its record."""
        record = record_of(job, now_s)
        for column, value in zip(self._columns, record, strict=True):
            column.append(value)  # type: ignore[arg-type]
        return record

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: int) -> RequestRecord:
        return RequestRecord(*(column[index] for column in self._columns))

    def column(self, name: str) -> NDArray[np.float64]:
        """All values of one field of ``RequestRecord``, as a copy."""
        return np.array(self._columns[RequestRecord._fields.index(name)], dtype=np.float64)

    def good(self, ttft_ms: float, itl_ms: float) -> int:
        """Number of requests that met both targets."""
        return int(self.met(ttft_ms, itl_ms).sum())

    def met(self, ttft_ms: float, itl_ms: float) -> NDArray[np.bool_]:
        """Whether each request met both targets."""
        met: NDArray[np.bool_] = (self.column("ttft_ms") <= ttft_ms) & (self.column("itl_ms") <= itl_ms)
        return met


_WHOLE = frozenset({"number", "isl", "osl", "preemptions"})
