"""Workers that the work of a load keeps busy in each second, by the profile alone: where a search for a size begins.

In prefill, the work that arrives in any window must fit into the window plus the slack of the target; in decode, the KV
use of the requests then present must fit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from planner.domain.pool import Role
from planner.sim.cluster.engine_timing import engine_law
from planner.sim.policies.tuning import capacity
from planner.sim.workload.scenario import Scenario

BIN_S = 1.0
WINDOWS_S = (1, 2, 4, 8, 16, 32, 64)
Series = NDArray[np.float64]


def needed(scenario: Scenario) -> Mapping[Role, Series]:
    """Workers needed in each second, by role (not rounded)."""
    law = engine_law(scenario.profile, scenario.truth)
    if law.prefill is None or law.decode is None:
        raise ValueError("the work of a load needs both phases of a profile")
    trace = scenario.trace
    bins = int(scenario.end_s / BIN_S) + 2
    t_s = np.asarray(trace.t_s)
    inside = t_s < scenario.end_s
    t_s, isl, osl = t_s[inside], np.asarray(trace.isl)[inside], np.asarray(trace.osl)[inside]
    seconds = np.interp(isl, law.prefill.isl, law.prefill.seconds)
    slope = (law.prefill.seconds[-1] - law.prefill.seconds[-2]) / (law.prefill.isl[-1] - law.prefill.isl[-2])
    seconds = seconds + np.maximum(0.0, isl - law.prefill.isl[-1]) * slope
    work: Series = np.bincount((t_s / BIN_S).astype(int), seconds, bins).astype(np.float64)
    slack_s = max(0.0, scenario.ttft_ms / 1000 - float(np.quantile(seconds, 0.9)))
    prefill = np.zeros(bins)
    for window in WINDOWS_S:
        need = _sum_ahead(work, window) / (window * BIN_S + slack_s)
        prefill = np.maximum(prefill, need)
    stay_s = osl * scenario.itl_ms / 1000 * 0.9
    tokens = isl + osl / 2
    kv = _present(t_s, t_s + stay_s, tokens, bins)
    room = capacity(scenario)
    decode = kv / (room.decode_kv_usage * law.decode.max_kv_tokens)
    return {Role.PREFILL: prefill, Role.DECODE: decode / min(1.0, scenario.truth)}


def _present(start_s: Series, end_s: Series, weight: Series, bins: int) -> Series:
    """Total weight present in each one-second bin."""
    change = np.bincount(np.minimum((start_s / BIN_S).astype(int), bins), weight, bins + 1)
    change -= np.bincount(np.minimum((end_s / BIN_S).astype(int) + 1, bins), weight, bins + 1)
    return np.cumsum(change)[:bins].astype(np.float64)


def _sum_ahead(values: Series, window: int) -> Series:
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.minimum(np.arange(len(values)) + window, len(values))
    ahead: Series = total[ends] - total[: len(values)]
    return ahead
