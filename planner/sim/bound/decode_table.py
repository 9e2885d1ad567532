"""Decode by interval: a fluid of answers that share the batches of equal workers, for each count and cap.

For one count over the whole trace: answers advance by the pace of the batch that is present, and the batch is what has
not finished at that pace; a few rounds bring both into agreement. An interval's outcome is read from the run in which
that count serves throughout: what another count left behind is not seen, and a pace is never taken to be slower than
``SLOWEST`` targets, so that a count that is short for hours does not spoil the hours after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.domain.power import PowerCurve
from planner.sim.bound.phase_table import Values
from planner.sim.cluster.decode_worker import WATERMARK
from planner.sim.cluster.engine_timing import DecodeLaw
from planner.sim.cluster.sim_gpu import batch_share, capped_speed

STEP_S = 0.5
ROUNDS = 8
SLOWEST = 1.5
SCATTER = 0.03
"""Standard deviation of an answer's pace around the fluid's, as a share of it: workers do not hold equal batches. In
the plant 0.002 to 0.006 with all watts, up to 0.04 at the lowest useful cap."""
SHARES = np.linspace(0.6, 1.0, 41)
"""Shares of the saturated draw between which speeds are interpolated."""


@dataclass(frozen=True, slots=True)
class DecodeOutcome:
    """Of one count at one cap: the mean gap between the tokens of each answer, and the draw of a GPU by step."""

    itl_s: Values
    draw_mw: Values


def outcome(
    joined_s: Values,
    isl: Values,
    osl: Values,
    workers: int,
    cap_mw: int,
    law: DecodeLaw,
    curve: PowerCurve,
    itl_s: float,
) -> DecodeOutcome:
    """The pace of every answer with ``workers`` at ``cap_mw`` from the first to the last."""
    steps = int(joined_s.max(initial=0.0) / STEP_S) + int(float(osl.max(initial=1.0)) * SLOWEST * itl_s / STEP_S) + 3
    grid = np.arange(steps) * STEP_S
    speeds = np.array([capped_speed(curve, float(cap_mw), float(share)) for share in SHARES])
    draws = np.minimum(cap_mw, curve.p_u_mw * SHARES)
    finish = joined_s + osl * itl_s * 0.6
    room = law.max_kv_tokens * (1.0 - WATERMARK) * workers
    tokens = isl + osl / 2.0
    batch: Values = np.zeros(steps)
    for number in range(ROUNDS):
        batch = present(joined_s, finish, np.ones_like(osl), steps)
        kv = present(joined_s, finish, tokens, steps)
        each = np.maximum(batch / workers, 1.0)
        pace = (law.a + law.b * each + law.c * np.maximum(kv / workers, 0.0)) / np.interp(
            share_of(each), SHARES, speeds
        )
        pace *= np.maximum(1.0, kv / room)
        pace = np.minimum(pace, SLOWEST * itl_s)
        progress = np.concatenate([[0.0], np.cumsum(STEP_S / pace)[:-1]])
        found = np.interp(np.interp(joined_s, grid, progress) + osl, progress, grid)
        finish = found if number == 0 else (finish + found) / 2.0
    each = batch / workers
    serving = 1.0 - np.exp(-each)
    drawn = np.interp(share_of(np.maximum(each, 1.0)), SHARES, draws)
    return DecodeOutcome((finish - joined_s) / osl, curve.idle_mw + (drawn - curve.idle_mw) * serving)


def in_time(itl_s: Values, target_s: float) -> Values:
    """The probability that an answer whose pace is ``itl_s`` in the fluid is in time (a logistic for the normal)."""
    chance: Values = 1.0 / (1.0 + np.exp(-1.702 * np.log(target_s / itl_s) / SCATTER))
    return chance


def share_of(batch: Values) -> Values:
    """``batch_share`` for whole series; between whole batches by its own law."""
    one, ten = batch_share(1), batch_share(10)
    shares: Values = np.minimum(1.0, one + (ten - one) * np.log10(np.maximum(batch, 1.0)))
    return shares


def present(start_s: Values, end_s: Values, weight: Values, steps: int) -> Values:
    """Total weight present at each step; an event between two steps counts in part at the earlier one."""
    change = _spread(start_s, weight, steps) - _spread(end_s, weight, steps)
    held: Values = np.maximum(np.cumsum(change), 0.0)
    return held


def _spread(at_s: Values, weight: Values, steps: int) -> Values:
    place = np.clip(at_s / STEP_S, 0.0, steps - 2.0)
    low = place.astype(np.int64)
    above = place - low
    before: Values = np.bincount(low, weight * (1.0 - above), steps).astype(np.float64)
    after: Values = np.bincount(low + 1, weight * above, steps).astype(np.float64)
    return before + after
