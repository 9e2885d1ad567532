"""Prefill by interval: first come, first served by equal workers, from each backlog that an interval may begin with.

Every prompt of the interval is served with its own time, by the worker that is free first, in chunks as in the plant;
what waits when an interval begins is spread evenly over the workers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.sim.bound.phase_table import Values
from planner.sim.cluster.engine_timing import PrefillLaw
from planner.sim.cluster.prefix_cache import PrefixCache
from planner.sim.workload.scenario import Scenario

LEVELS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0, 256.0)
"""Work that waits, in multiples of the TTFT target, over all workers."""


@dataclass(frozen=True, slots=True)
class PrefillOutcome:
    """Of one count: shares in time, work left (seconds at full speed) and busy seconds, by interval, cap and level."""

    share: Values
    left_s: Values
    busy_s: Values


def prompt_seconds(law: PrefillLaw, isl: Values) -> Values:
    """Seconds at full speed of prompts computed alone."""
    if len(law.isl) == 1:
        proportional: Values = law.seconds[0] * np.maximum(isl / law.isl[0], 0.0)
        return proportional
    xs, ys = np.asarray(law.isl), np.asarray(law.seconds)
    place = np.clip(np.searchsorted(xs, isl), 1, len(xs) - 1)
    slope = (ys[place] - ys[place - 1]) / (xs[place] - xs[place - 1])
    seconds: Values = np.maximum(ys[place - 1] + (isl - xs[place - 1]) * slope, law.once_s)
    return seconds


def computed_tokens(scenario: Scenario, workers: int, kv_tokens: int, requests: int) -> Values:
    """Prompt tokens that no cache holds, with requests handed to ``workers`` in turn; at least one each."""
    trace = scenario.trace
    isl = np.asarray(trace.isl, dtype=np.float64)[:requests]
    if not any(pool.prefix_cache for pool in scenario.pools) or not trace.hash_ids:
        return np.maximum(isl, 1.0)
    caches = [PrefixCache(kv_tokens) for _ in range(workers)]
    cached = [caches[i % workers].use(trace.hash_ids[i], int(isl[i])) for i in range(requests)]
    return np.maximum(isl - np.array(cached, dtype=np.float64), 1.0)


@dataclass(frozen=True, slots=True)
class TimedPrompts:
    """By ascending arrival. ``service_s`` is at full speed; a prompt is in time if it is done by ``deadline_s``."""

    t_s: Values
    tokens: Values
    service_s: Values
    deadline_s: Values


@dataclass(frozen=True, slots=True)
class ChunkEngines:
    """Equal workers at several speeds. A chunk holds ``chunk_tokens``, and pays ``once_s`` once for all its prompts."""

    workers: int
    speeds: Values
    chunk_tokens: int
    once_s: float


def outcome(prompts: TimedPrompts, engines: ChunkEngines, levels_s: Values, every_s: float) -> PrefillOutcome:
    """Serve each interval's prompts from each level."""
    t_s = prompts.t_s
    intervals = int(t_s[-1] // every_s) + 1 if len(t_s) else 1
    place = (t_s // every_s).astype(np.int64)
    first = np.searchsorted(place, np.arange(intervals))
    counts = np.bincount(place, minlength=intervals)
    busiest = np.argsort(-counts, kind="stable")
    shape = (intervals, len(engines.speeds), len(levels_s))
    share, left, busy = (np.zeros(shape) for _ in range(3))
    for block in np.array_split(busiest, max(1, len(busiest) // 500)):
        lanes = _Lanes(block.astype(np.float64) * every_s, engines, levels_s)
        for number in range(int(counts[block].max(initial=0))):
            active = int(np.searchsorted(-counts[block], -number, side="left"))
            lanes.arrive(prompts, first[block[:active]] + number)
        share[block], left[block], busy[block] = lanes.ended(every_s)
    share /= np.maximum(counts, 1)[:, None, None]
    share[counts == 0] = 1.0
    return PrefillOutcome(share, left, busy)


class _Lanes:
    """Intervals side by side, each once for every speed and level, one prompt of each interval at a time.

    While all workers are busy, prompts that arrive share the next chunk: that of the worker which is free first. Of
    the open chunk only the number of prompts and their earliest and latest deadlines are kept; where its end lies
    between these two, that part of the prompts is in time.
    """

    def __init__(self, begin_s: Values, engines: ChunkEngines, levels_s: Values) -> None:
        self._engines, self._begin_s = engines, begin_s
        self._shape = (len(begin_s), len(engines.speeds), len(levels_s))
        self._speed = np.repeat(engines.speeds, len(levels_s))
        self._waiting_s = np.tile(levels_s, len(engines.speeds))
        lanes = (len(begin_s), len(self._speed))
        busy_s = (self._waiting_s / self._speed / engines.workers)[None, :, None]
        self._free_s = begin_s[:, None, None] + np.broadcast_to(busy_s, (*lanes, engines.workers)).copy()
        self._arrived_s = np.zeros(lanes)
        self._good = np.zeros(lanes)
        self._members, self._tokens, self._begins_s, self._ends_s = (np.zeros(lanes) for _ in range(4))
        self._earliest_s, self._latest_s = np.zeros(lanes), np.zeros(lanes)
        self._worker = np.zeros(lanes, dtype=np.int64)
        self._rows, self._columns = np.arange(lanes[0])[:, None], np.arange(lanes[1])[None, :]

    def arrive(self, prompts: TimedPrompts, which: NDArray[np.int64]) -> None:
        """The next prompt of the first ``len(which)`` intervals."""
        n = slice(0, len(which))
        at, tokens = prompts.t_s[which][:, None], prompts.tokens[which][:, None]
        deadline = prompts.deadline_s[which][:, None]
        work_s = prompts.service_s[which][:, None]
        joins = (self._begins_s[n] > at) & (self._tokens[n] + tokens <= self._engines.chunk_tokens)
        self._good[n] += np.where(joins, 0.0, self._in_time(n))
        rows, columns = self._rows[n], self._columns
        worker = np.where(joins, self._worker[n], self._free_s[n].argmin(axis=2))
        begins = np.where(joins, self._begins_s[n], np.maximum(self._free_s[n][rows, columns, worker], at))
        joint_s = np.where(joins, np.maximum(work_s - self._engines.once_s, 0.0), work_s)
        ends = np.where(joins, self._ends_s[n], begins) + joint_s / self._speed
        self._free_s[n][rows, columns, worker] = ends
        self._members[n] = np.where(joins, self._members[n], 0.0) + 1.0
        self._tokens[n] = np.where(joins, self._tokens[n], 0.0) + tokens
        self._earliest_s[n] = np.where(joins, np.minimum(self._earliest_s[n], deadline), deadline)
        self._latest_s[n] = np.where(joins, np.maximum(self._latest_s[n], deadline), deadline)
        self._arrived_s[n] += joint_s
        self._worker[n], self._begins_s[n], self._ends_s[n] = worker, begins, ends

    def _in_time(self, n: slice) -> Values:
        """Prompts of the open chunks that are in time."""
        late_s = self._latest_s[n] - self._earliest_s[n]
        part = np.where(
            late_s > 0,
            (self._latest_s[n] - self._ends_s[n]) / np.where(late_s > 0, late_s, 1.0),
            self._ends_s[n] <= self._latest_s[n],
        )
        in_time: Values = self._members[n] * np.clip(part, 0.0, 1.0)
        return in_time

    def ended(self, every_s: float) -> tuple[Values, Values, Values]:
        """Prompts in time, seconds of work left and busy seconds."""
        good = self._good + self._in_time(slice(None))
        end_s = (self._begin_s + every_s)[:, None, None]
        left_s = np.maximum(self._free_s - end_s, 0.0).sum(axis=2) * self._speed
        done_s = np.maximum(self._arrived_s + self._waiting_s - left_s, 0.0) / self._speed
        busy_s = np.minimum(done_s, self._engines.workers * every_s)
        return good.reshape(self._shape), left_s.reshape(self._shape), busy_s.reshape(self._shape)
