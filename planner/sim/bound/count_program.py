"""The dynamic program: counts and caps for every interval that cost least, at a price for each request not good.

Its state is the count of each pool and the work that waits for prefill; its moves are the next counts and the caps.
Exact on the tables that it is given. A replica more costs its start-up, which a planner who knows the trace begins
early enough. Under a budget, intervals are at least as long as a start, which then takes GPUs and watts from the
interval before; without one, only the workers that serve have to fit on the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.sim.bound.phase_table import PhaseTable, Values

FORBIDDEN = 1e30


class PlanStep(NamedTuple):
    """One interval of a plan: counts that serve, and caps by their numbers."""

    prefill: int
    decode: int
    prefill_cap: int
    decode_cap: int


@dataclass(frozen=True, slots=True)
class BoundWorld:
    """Two phases on one cluster. ``decode`` has one level: its backlog is not a state.

    ``requests``: arrivals by interval. ``budget_mw``: watts by interval for all GPUs; None: as many as they draw.
    ``by_joules``: whether a plan's cost is joules of the GPUs that workers hold, or GPU-seconds.
    """

    prefill: PhaseTable
    decode: PhaseTable
    requests: Values
    every_s: float
    gpus: int
    idle_mw: int
    budget_mw: Values | None = None
    by_joules: bool = False

    @property
    def intervals(self) -> int:
        return len(self.requests)

    def costs(self, table: PhaseTable) -> Values:
        """Cost of the GPUs that serve, by interval, count, cap and level."""
        if self.by_joules:
            return table.joules
        seconds = np.arange(1, table.counts + 1) * table.gpus_per_replica * self.every_s
        return np.broadcast_to(seconds[None, :, None, None], table.share.shape)

    def most_cost(self) -> float:
        """What no plan exceeds: the dearest of everything in every interval, and all starts in each."""
        starts = sum(self.start_cost(table) * table.counts for table in (self.prefill, self.decode))
        dearest = sum(float(self.costs(table).max(axis=(1, 2, 3)).sum()) for table in (self.prefill, self.decode))
        return dearest + starts * self.intervals

    def start_cost(self, table: PhaseTable) -> float:
        """Cost of one start."""
        each = table.starting_mw / 1000.0 if self.by_joules else 1.0
        return table.startup_s * table.gpus_per_replica * each

    def gpus_held(self) -> Values:
        """By prefill and decode count: GPUs of the workers that serve."""
        p, d = self.prefill, self.decode
        p_gpus = np.arange(1.0, p.counts + 1) * p.gpus_per_replica
        d_gpus = np.arange(1.0, d.counts + 1) * d.gpus_per_replica
        held: Values = p_gpus[:, None] + d_gpus[None, :]
        return held

    def room(self) -> Values:
        """By prefill count and cap, decode count and cap (a place for the level between): watts at these caps.

        In milliwatts, with the idle draw of all other GPUs.
        """
        p, d = self.prefill, self.decode
        p_gpus = np.arange(1.0, p.counts + 1)[:, None, None, None, None] * p.gpus_per_replica
        d_gpus = np.arange(1.0, d.counts + 1)[None, None, None, :, None] * d.gpus_per_replica
        p_mw = (np.array(p.caps_mw) - self.idle_mw)[None, :, None, None, None] * p_gpus
        d_mw = (np.array(d.caps_mw) - self.idle_mw)[None, None, None, None, :] * d_gpus
        watts: Values = p_mw + d_mw + self.gpus * self.idle_mw
        return watts


@dataclass(frozen=True, slots=True)
class Solved:
    """The least expected cost plus price times requests not good, and the moves that reach it.

    ``caps`` and ``moves`` are by interval and state (prefill count, level, decode count), coded. A move is made at the
    beginning of an interval from the counts before it; with ``ahead``, in an interval for the next one.
    """

    value: float
    begin: tuple[int, int]
    moves: NDArray[np.int32]
    caps: NDArray[np.int16]
    ahead: bool = False


def solve(world: BoundWorld, price: float) -> Solved:
    """Sweep from the last interval to the first."""
    if world.budget_mw is not None:
        return _solve_within(world, price, world.budget_mw)
    p, d = world.prefill, world.decode
    p_cost, d_cost = world.costs(p), world.costs(d)[:, :, :, 0]
    p_start, d_start = world.start_cost(p), world.start_cost(d)
    shape = (p.counts, p.levels, d.counts)
    moves = np.zeros((world.intervals, *shape), dtype=np.int32)
    caps = np.zeros((world.intervals, *shape), dtype=np.int16)
    more_p = np.maximum(np.arange(p.counts)[None, :] - np.arange(p.counts)[:, None], 0) * p_start
    more_d = np.maximum(np.arange(d.counts)[None, :] - np.arange(d.counts)[:, None], 0) * d_start
    value = np.zeros(shape)
    serving = value
    gpus = world.gpus_held()
    forbidden = np.where(gpus > world.gpus, FORBIDDEN, 0.0)[:, None, None, :, None]
    rows = np.arange(p.counts)[:, None, None]
    for t in range(world.intervals - 1, -1, -1):
        low = np.minimum(p.after[t].astype(np.int64), max(0, p.levels - 2))
        above = (p.after[t] - low)[..., None]
        later = value[rows, low] * (1.0 - above) + value[rows, np.minimum(low + 1, p.levels - 1)] * above
        total = _served(world, t, price, p_cost[t], d_cost[t]) + later[..., None] + forbidden
        # (count, prefill cap, level, decode count, decode cap) -> caps last
        by_caps = total.transpose(0, 2, 3, 1, 4).reshape(*shape, -1)
        chosen = by_caps.argmin(axis=-1)
        caps[t] = chosen
        serving = np.take_along_axis(by_caps, chosen[..., None], axis=-1)[..., 0]
        value, moves[t] = _moved(serving, more_p, more_d)
    at_start = serving[:, 0, :]
    begin = np.unravel_index(int(at_start.argmin()), at_start.shape)
    return Solved(float(at_start.min()), (int(begin[0]), int(begin[1])), moves, caps)


def _served(world: BoundWorld, t: int, price: float, p_cost: Values, d_cost: Values) -> Values:
    """One interval alone, by prefill count, cap and level, decode count and cap."""
    missed = 1.0 - world.prefill.share[t][..., None, None] * world.decode.share[t, :, :, 0]
    alone: Values = (price * world.requests[t]) * missed + p_cost[..., None, None] + d_cost
    return alone


def _solve_within(world: BoundWorld, price: float, budget_mw: Values) -> Solved:
    """As ``solve``, where GPUs and watts are short: what starts in an interval holds both until it serves in the next.

    An interval is at least as long as a start. The next counts are chosen with the caps, before what waits then is
    known.
    """
    p, d = world.prefill, world.decode
    p_cost, d_cost = world.costs(p), world.costs(d)[:, :, :, 0]
    shape = (p.counts, p.levels, d.counts)
    moves = np.zeros((world.intervals, *shape), dtype=np.int32)
    caps = np.zeros((world.intervals, *shape), dtype=np.int16)
    room = world.room()
    # By next prefill and decode count, then by prefill and decode count.
    more_p = np.maximum(np.arange(p.counts)[:, None] - np.arange(p.counts)[None, :], 0)[:, None, :, None]
    more_d = np.maximum(np.arange(d.counts)[:, None] - np.arange(d.counts)[None, :], 0)[None, :, None, :]
    start_cost = more_p * world.start_cost(p) + more_d * world.start_cost(d)
    start_gpus = more_p * p.gpus_per_replica + more_d * d.gpus_per_replica
    no_gpu = np.where(world.gpus_held() + start_gpus > world.gpus, FORBIDDEN, 0.0)
    start_mw = more_p * (p.gpus_per_replica * (p.starting_mw - world.idle_mw)) + more_d * (
        d.gpus_per_replica * (d.starting_mw - world.idle_mw)
    )
    pairs = p.counts * d.counts
    value = np.zeros(shape)
    for t in range(world.intervals - 1, -1, -1):
        low = np.minimum(p.after[t].astype(np.int64), max(0, p.levels - 2))
        above = (p.after[t] - low)[..., None]
        # (prefill count, cap, level, next prefill count, next decode count), from what waits at the end
        by_level = value.transpose(1, 0, 2)
        later = (
            by_level[low] * (1.0 - above[..., None]) + by_level[np.minimum(low + 1, p.levels - 1)] * above[..., None]
        )
        # -> (next pair, prefill count, cap, level, decode count, cap)
        ahead = later.transpose(3, 4, 0, 1, 2).reshape(pairs, p.counts, -1, p.levels)[..., None, None]
        starts = (start_cost + no_gpu).reshape(pairs, p.counts, 1, 1, d.counts, 1)
        left_mw = (budget_mw[t] - room)[None]
        no_watts = start_mw.reshape(pairs, p.counts, 1, 1, d.counts, 1) > left_mw
        choices = np.where(no_watts, FORBIDDEN, ahead + starts)
        best = choices.argmin(axis=0)
        total = _served(world, t, price, p_cost[t], d_cost[t]) + np.take_along_axis(choices, best[None], axis=0)[0]
        by_caps = total.transpose(0, 2, 3, 1, 4).reshape(*shape, -1)
        chosen = by_caps.argmin(axis=-1)[..., None]
        caps[t] = chosen[..., 0]
        moves[t] = np.take_along_axis(best.transpose(0, 2, 3, 1, 4).reshape(*shape, -1), chosen, axis=-1)[..., 0]
        value = np.minimum(np.take_along_axis(by_caps, chosen, axis=-1)[..., 0], FORBIDDEN)
    at_start = value[:, 0, :]
    begin = np.unravel_index(int(at_start.argmin()), at_start.shape)
    return Solved(float(at_start.min()), (int(begin[0]), int(begin[1])), moves, caps, ahead=True)


def _moved(serving: Values, more_p: Values, more_d: Values) -> tuple[Values, NDArray[np.int32]]:
    """The best next counts from each state: first of decode, then of prefill; they cost independently of each other."""
    by_d = serving[:, :, None, :] + more_d
    to_d = by_d.argmin(axis=-1)
    after_d = np.take_along_axis(by_d, to_d[..., None], axis=-1)[..., 0]
    by_p = after_d[None] + more_p[:, :, None, None]
    to_p = by_p.argmin(axis=1)
    value = np.take_along_axis(by_p, to_p[:, None], axis=1)[:, 0]
    levels, decodes = np.arange(serving.shape[1])[None, :, None], np.arange(serving.shape[2])[None, None, :]
    return value, (to_p * serving.shape[2] + to_d[to_p, levels, decodes]).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what the model expects of it: cost and good requests."""

    steps: tuple[PlanStep, ...]
    cost: float
    good: float


def follow(world: BoundWorld, solved: Solved) -> Planned:
    """The plan from the first interval on, with the backlog between levels as it is, not at one of them."""
    p, d = world.prefill, world.decode
    counts = solved.begin
    at, steps = 0.0, []
    for t in range(world.intervals):
        level = min(round(at), p.levels - 1)
        if t > 0 and not solved.ahead:
            counts = _decoded(solved.moves[t, counts[0], level, counts[1]], d.counts)
        cap_p, cap_d = divmod(int(solved.caps[t, counts[0], level, counts[1]]), len(d.caps_mw))
        steps.append(PlanStep(counts[0] + 1, counts[1] + 1, cap_p, cap_d))
        at = _between(p.after[t, counts[0], cap_p], at)
        if solved.ahead:
            counts = _decoded(solved.moves[t, counts[0], level, counts[1]], d.counts)
    return evaluate(world, steps)


def evaluate(world: BoundWorld, steps: list[PlanStep]) -> Planned:
    """Expected cost and good requests of any plan, its first counts free of a start.

    The level is a distribution: from a place between two levels the next interval begins at either.
    """
    p, d = world.prefill, world.decode
    p_cost, d_cost = world.costs(p), world.costs(d)
    chance: Values = np.zeros(p.levels)
    chance[0] = 1.0
    cost = good = 0.0
    for t, step in enumerate(steps):
        i, j = step.prefill - 1, step.decode - 1
        before = steps[max(0, t - 1)]
        cost += max(0, step.prefill - before.prefill) * world.start_cost(p)
        cost += max(0, step.decode - before.decode) * world.start_cost(d)
        cost += float(chance @ p_cost[t, i, step.prefill_cap]) + float(d_cost[t, j, step.decode_cap, 0])
        share = float(chance @ p.share[t, i, step.prefill_cap]) * float(d.share[t, j, step.decode_cap, 0])
        good += share * world.requests[t]
        after = p.after[t, i, step.prefill_cap]
        low = np.minimum(after.astype(np.int64), max(0, p.levels - 2))
        up: Values = np.bincount(np.minimum(low + 1, p.levels - 1), chance * (after - low), p.levels).astype(np.float64)
        stay: Values = np.bincount(low, chance * (1.0 - (after - low)), p.levels).astype(np.float64)
        chance = stay + up
    return Planned(tuple(steps), cost, good)


def _decoded(pair: np.int32, decodes: int) -> tuple[int, int]:
    prefill, decode = divmod(int(pair), decodes)
    return prefill, decode


def _between(values: Values, at: float) -> float:
    return float(np.interp(at, np.arange(len(values)), values))
