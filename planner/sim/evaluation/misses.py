"""Why requests missed their targets: one cause each, from the state at their arrival.

Owns the order in which causes are tried: first what no policy could have served, then what the policy was denied, then
what it started too late, then what it did not forecast, and last queueing with enough capacity.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

import numpy as np

from planner.sim.cluster.engine_timing import engine_law
from planner.sim.evaluation.records import RequestRecord
from planner.sim.evaluation.simulation import SimulationRun

FORECAST_WINDOW_S = 30.0
HELD_S = 60.0
SHARE_OF_TARGET = 0.25
"""A wait is the cause only above this share of the target."""


class Cause(StrEnum):
    """The cause of a miss; ``CAUSE_WORDS`` explains each."""

    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    UNFINISHED = "unfinished"
    HELD = "held"
    STARTING = "starting"
    FORECAST = "forecast"
    BATCH = "batch"
    MODEL = "model"
    DECODE_QUEUE = "decode_queue"
    SLOW = "slow"
    QUEUE = "queue"


CAUSE_WORDS = {
    Cause.UNREACHABLE: "its prompt alone takes longer than the TTFT target, at full speed",
    Cause.REFUSED: "no worker's KV cache can hold it",
    Cause.UNFINISHED: "still unfinished long after the end of the load",
    Cause.HELD: "the policy wanted more than a budget, bound or rate allowed; counted with that: held:power_budget",
    Cause.STARTING: "capacity was starting, but not ready yet",
    Cause.FORECAST: "more arrived than the policy had sized for",
    Cause.BATCH: "the ITL was missed: too many requests in a decode batch",
    Cause.MODEL: "the ITL was missed on engines that are not as profiled",
    Cause.DECODE_QUEUE: "it waited for a place in a decode batch",
    Cause.SLOW: "it did not wait, but was slow: its chunk was shared with other prompts, or its GPU was capped",
    Cause.QUEUE: "it waited for a prefill worker although the load was as forecast: a burst, or too little reserve",
}


def causes(run: SimulationRun) -> Mapping[str, int]:
    """Missed requests by cause; they add up to all arrived requests less the good ones."""
    found: Counter[str] = Counter()
    scenario = run.scenario
    records = run.plant.records
    judge = _Judge(run)
    for index in np.flatnonzero(~records.met(scenario.ttft_ms, scenario.itl_ms)):
        record = records[int(index)]
        cause = judge.cause(record)
        found[f"held:{judge.held_by(record.t_s)}" if cause is Cause.HELD else cause.value] += 1
    if run.plant.refused:
        found[Cause.REFUSED.value] = run.plant.refused
    if run.plant.in_flight:
        found[Cause.UNFINISHED.value] = run.plant.in_flight
    return dict(found.most_common())


class _Judge:
    def __init__(self, run: SimulationRun) -> None:
        self._scenario = run.scenario
        self._prefill = engine_law(run.scenario.profile, run.scenario.truth).prefill
        self._starts = {
            name: sorted((begin, end) for pool, begin, end in run.plant.starts if pool == name and end > begin)
            for name in run.plant.pools
        }
        self._held = [t for t, _ in run.wanted_but_held]
        self._held_by = [reason for _, reason in run.wanted_but_held]
        self._forecasts = run.forecasts
        self._arrivals = np.asarray(run.scenario.trace.t_s)

    def cause(self, record: RequestRecord) -> Cause:
        """The cause of one miss."""
        scenario = self._scenario
        if self._prefill is not None and self._prefill.alone_s(record.isl) * 1000 > scenario.ttft_ms:
            return Cause.UNREACHABLE
        if self._was_held(record.t_s):
            return Cause.HELD
        if any(self._was_starting(name, record.t_s) for name in self._starts):
            return Cause.STARTING
        if self._was_above_forecast(record.t_s):
            return Cause.FORECAST
        if record.ttft_ms <= scenario.ttft_ms:
            return Cause.BATCH if scenario.truth == 1.0 else Cause.MODEL
        if record.decode_wait_ms > SHARE_OF_TARGET * scenario.ttft_ms:
            return Cause.DECODE_QUEUE
        if record.prefill_wait_ms < SHARE_OF_TARGET * scenario.ttft_ms:
            return Cause.SLOW
        return Cause.QUEUE

    def held_by(self, t_s: float) -> str:
        """The last reason before ``t_s`` for which the policy got less than it wanted; None without one."""
        return self._held_by[max(bisect_right(self._held, t_s) - 1, 0)]

    def _was_held(self, t_s: float) -> bool:
        place = bisect_right(self._held, t_s)
        return place > 0 and t_s - self._held[place - 1] < HELD_S

    def _was_starting(self, pool: str, t_s: float) -> bool:
        starts = self._starts[pool]
        place = bisect_right(starts, (t_s, float("inf")))
        return any(end > t_s for _, end in starts[max(0, place - 64) : place])

    def _was_above_forecast(self, t_s: float) -> bool:
        place = bisect_right(self._forecasts, (t_s, float("inf")))
        if not place:
            return False
        first, last = np.searchsorted(self._arrivals, (t_s - FORECAST_WINDOW_S, t_s))
        return bool((last - first) / FORECAST_WINDOW_S > self._forecasts[place - 1][1])
