"""From a scenario to the tables of both phases: what a plan may choose from, and what the model says of each choice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.domain.pool import Role
from planner.sim.bound import decode_table, prefill_table
from planner.sim.bound.count_program import BoundWorld
from planner.sim.bound.phase_table import PhaseTable, Values, caps_for_budget, caps_for_hours, caps_for_joules
from planner.sim.cluster.engine_timing import EngineLaw, engine_law
from planner.sim.cluster.plant import TransferSpec
from planner.sim.cluster.sim_gpu import GpuCard, capped_speed
from planner.sim.cluster.worker_pool import PoolSpec
from planner.sim.workload.scenario import Scenario

EVERY_S = 10.0
"""How often a plan may change. Under a budget it is at least a start-up time."""
MOST_COUNT = 24
ENOUGH = 0.9995
"""A count that reaches this part of what unlimited workers would is the largest that a plan may choose."""
FIRST_TOKEN_ITERATIONS = 1.5
"""The rest of the running iteration (half of one in the mean), and the first token's own."""


def model(scenario: Scenario, *, by_joules: bool = False) -> BoundWorld:
    """The tables of both phases. Raises ValueError for pools other than one of prefill and one of decode."""
    prefill, decode = _pools(scenario)
    law = engine_law(scenario.profile, scenario.truth)
    t_s = np.asarray(scenario.trace.t_s, dtype=np.float64)
    t_s = t_s[t_s < scenario.end_s]
    card = scenario.cluster.card
    every_s = EVERY_S if scenario.budget is None else max(EVERY_S, prefill.startup_s, decode.startup_s)
    intervals = max(1, int(np.ceil(max(scenario.end_s, 1e-9) / every_s)))
    caps = [_caps(scenario, pool, by_joules) for pool in (prefill, decode)]
    rooms = [
        min(MOST_COUNT, (scenario.gpus - other.gpus_per_replica) // pool.gpus_per_replica)
        for pool, other in ((prefill, decode), (decode, prefill))
    ]
    if min(rooms) < 1:
        raise ValueError("the cluster does not hold a worker of each pool")
    stage = _Stage(scenario, law, t_s, every_s, intervals)
    decoded, token_s = stage.decode(decode, caps[1], rooms[1])
    return BoundWorld(
        stage.prefill(prefill, caps[0], rooms[0], token_s),
        decoded,
        stage.requests(),
        every_s,
        scenario.gpus,
        card.idle_mw,
        stage.budget_mw(),
        by_joules,
    )


def _pools(scenario: Scenario) -> tuple[PoolSpec, PoolSpec]:
    by_role = {pool.role: pool for pool in scenario.pools}
    if set(by_role) != {Role.PREFILL, Role.DECODE} or len(scenario.pools) != 2:
        raise ValueError("the clairvoyant plans one prefill and one decode pool")
    return by_role[Role.PREFILL], by_role[Role.DECODE]


def _caps(scenario: Scenario, pool: PoolSpec, by_joules: bool) -> tuple[int, ...]:
    card = scenario.cluster.card
    if scenario.budget is not None:
        return caps_for_budget(pool.curve, card)
    return caps_for_joules(pool.curve, card) if by_joules else caps_for_hours(card)


class _Stage:
    """Builds tables: counts upwards, until another worker would make nobody good any more."""

    def __init__(self, scenario: Scenario, law: EngineLaw, t_s: Values, every_s: float, intervals: int) -> None:
        if law.prefill is None or law.decode is None:
            raise ValueError("the clairvoyant needs both phases of a profile")
        self._scenario, self._t_s, self._every_s, self._intervals = scenario, t_s, every_s, intervals
        self._prefill, self._decode = law.prefill, law.decode
        self._isl = np.asarray(scenario.trace.isl, dtype=np.float64)[: len(t_s)]
        self._osl = np.asarray(scenario.trace.osl, dtype=np.float64)[: len(t_s)]
        self._place = np.minimum((t_s // every_s).astype(np.int64), intervals - 1)

    def requests(self) -> Values:
        """Arrivals by interval."""
        return np.bincount(self._place, minlength=self._intervals).astype(np.float64)

    def budget_mw(self) -> Values | None:
        """The least budget within each interval."""
        budget = self._scenario.budget
        if budget is None:
            return None
        starts = [t_s for t_s, _ in budget.steps]
        least = [
            min(budget.at(t) for t in (at, *(s for s in starts if at < s < at + self._every_s)))
            for at in np.arange(self._intervals) * self._every_s
        ]
        return np.array(least, dtype=np.float64)

    def decode(self, pool: PoolSpec, caps: tuple[int, ...], most: int) -> tuple[PhaseTable, Values]:
        """The table, and the time to the first token after prefill at a batch that is in time."""
        spec = self._scenario
        joined_s = self._t_s + prefill_table.prompt_seconds(self._prefill, self._isl)
        target_s = spec.itl_ms / 1000.0
        shares, draws, token_s = [], [], np.full(len(self._t_s), target_s)
        steps = int(self._every_s / decode_table.STEP_S)
        for count in range(1, most + 1):
            rows = [
                decode_table.outcome(joined_s, self._isl, self._osl, count, cap, self._decode, pool.curve, target_s)
                for cap in caps
            ]
            good = [np.where(self._osl > 1, decode_table.in_time(row.itl_s, target_s), 1.0) for row in rows]
            shares.append(np.stack([self._share(np.where(self._fits(), one, 0.0)) for one in good], axis=1))
            draws.append(np.stack([self._mean(row.draw_mw, steps) for row in rows], axis=1) * count)
            token_s = np.minimum(rows[-1].itl_s, target_s)
            if good[-1].sum() >= ENOUGH * len(self._t_s):
                break
        joules = np.stack(draws, axis=1) * pool.gpus_per_replica * self._every_s / 1000.0
        share = np.stack(shares, axis=1)
        after = np.zeros((*share.shape, 1))
        return _table(pool, spec.cluster.card, share[..., None], joules[..., None], after, caps), token_s

    def prefill(self, pool: PoolSpec, caps: tuple[int, ...], most: int, token_s: Values) -> PhaseTable:
        spec = self._scenario
        transfer = TransferSpec()
        extra_s = transfer.base_s + transfer.per_token_s * self._isl + FIRST_TOKEN_ITERATIONS * token_s
        allowed_s = spec.ttft_ms / 1000.0 - extra_s
        allowed_s = np.where(self._fits(), allowed_s, -1.0)
        speeds = np.array([capped_speed(pool.curve, float(cap)) for cap in caps])
        levels_s = np.array(prefill_table.LEVELS) * spec.ttft_ms / 1000.0
        draw_mw = np.minimum(np.array(caps), pool.curve.p_u_mw)[None, :, None]
        idle_mw = pool.curve.idle_mw
        shares, joules, places = [], [], []
        for count in range(1, most + 1):
            tokens = prefill_table.computed_tokens(spec, count, self._decode.max_kv_tokens, len(self._t_s))
            service_s = np.where(self._fits(), prefill_table.prompt_seconds(self._prefill, tokens), 0.0)
            reachable = float((service_s / speeds[-1] <= allowed_s).sum())
            prompts = prefill_table.TimedPrompts(self._t_s, tokens, service_s, self._t_s + allowed_s)
            engines = prefill_table.ChunkEngines(count, speeds, self._prefill.max_batched_tokens, self._prefill.once_s)
            found = prefill_table.outcome(prompts, engines, levels_s, self._every_s)
            shares.append(self._whole(found.share, 1.0))
            busy = self._whole(found.busy_s, 0.0)
            joules.append((busy * draw_mw + (count * self._every_s - busy) * idle_mw) / 1000.0)
            left = self._whole(found.left_s, None, levels_s, speeds, count)
            places.append(np.interp(left, levels_s, np.arange(len(levels_s), dtype=np.float64)))
            good = float((shares[-1][:, -1, 0] * self.requests()).sum())
            if good >= ENOUGH * reachable:
                break
        share, energy_j, after = (np.stack(rows, axis=1) for rows in (shares, joules, places))
        return _table(pool, spec.cluster.card, share, energy_j * pool.gpus_per_replica, after, caps)

    def _fits(self) -> NDArray[np.bool_]:
        """Requests that some worker's KV cache can hold; the others are refused."""
        fits: NDArray[np.bool_] = self._isl + self._osl <= self._decode.max_kv_tokens
        return fits

    def _share(self, good: Values) -> Values:
        counts = np.maximum(self.requests(), 1.0)
        share: Values = np.bincount(self._place, good, self._intervals) / counts
        return np.where(self.requests() > 0, share, 1.0)

    def _mean(self, series: Values, steps: int) -> Values:
        whole = np.zeros(self._intervals * steps)
        part = series[: len(whole)]
        whole[: len(part)] = part
        whole[len(part) :] = series[-1]
        mean: Values = whole.reshape(self._intervals, steps).mean(axis=1)
        return mean

    def _whole(
        self,
        rows: Values,
        fill: float | None,
        levels_s: Values | None = None,
        speeds: Values | None = None,
        count: int = 1,
    ) -> Values:
        """Rows up to the last arrival, made as long as the load: after it only the backlog is worked off."""
        missing = self._intervals - len(rows)
        if missing <= 0:
            return rows[: self._intervals]
        if fill is None and levels_s is not None and speeds is not None:
            rest = np.maximum(levels_s[None, :] - speeds[:, None] * count * self._every_s, 0.0)
            return np.concatenate([rows, np.broadcast_to(rest, (missing, *rest.shape))])
        return np.concatenate([rows, np.full((missing, *rows.shape[1:]), fill or 0.0)])


def _table(
    pool: PoolSpec, card: GpuCard, share: Values, joules: Values, after: Values, caps: tuple[int, ...]
) -> PhaseTable:
    starting_mw = max(card.starting_mw, card.idle_mw)
    return PhaseTable(share, joules, after, caps, pool.gpus_per_replica, pool.startup_s, starting_mw)
