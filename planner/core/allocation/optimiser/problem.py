"""The optimiser's problem as arrays: every pool's counts, what each needs, and what a load level then costs.

Owns the translation from ``DeploymentDemand`` to numbers. Must never choose. Pools are rows, counts are columns
(padded); a load level ``f`` (0..1) is a third axis: for a given ``f`` the pools of a deployment no longer depend on one
another, which is what makes the joint problem separable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.domain.demand import DeploymentDemand, PoolDemand, SiteLimits
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.weights import Weights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEP_MW = 5_000
"""Caps are multiples of 5 W: finer steps are lost in the hardware's own control."""
TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Problem:
    """P pools in D deployments, at most N counts a pool, at most S cap steps. In mW; costs in ``Weights``' watts.

    Pools of one deployment are neighbours: ``first[d] .. first[d + 1]``.
    """

    demands: tuple[DeploymentDemand, ...]
    names: tuple[PoolId, ...]
    owner: Ints
    first: Ints
    worth: Floats
    """(D) watts that the whole load of a deployment is worth."""
    top: Floats
    """(D) the largest share of its load that a deployment can carry without limits."""
    most_gpus: Floats
    """(D) a deployment's own GPU limit; inf for none."""
    count: Ints
    """(P, N)"""
    gpus: Floats
    """(P, N) GPUs at each count."""
    need: Floats
    """(P, N) speed that the whole load needs."""
    root: Floats
    """(P, N) ``need ** (1 / alpha)``."""
    busy: Floats
    fixed: Floats
    """(P, N) cost whatever the cap; inf where there is no such count."""
    curve: Floats
    """(P, 6): P_s, P_u - P_s, 1 / alpha, idle, P_u in mW, energy weight per mW."""
    floor: Ints
    """(P) lowest cap, in steps."""
    ceiling: Ints
    """(P) highest cap worth giving, in steps."""
    speed: Floats
    """(P, S) speed at each step from the floor on."""
    reserve_mw: float
    budget_mw: float
    """Left after every GPU's reserve."""
    gpu_limit: float

    @property
    def deployments(self) -> int:
        return len(self.demands)

    def pools_of(self, deployment: int) -> range:
        return range(int(self.first[deployment]), int(self.first[deployment + 1]))


@dataclass(frozen=True, slots=True)
class Levels:
    """What each level costs: ``steps``, ``mw`` (above reserve) and ``cost`` are (R, K, N); cost inf: impossible."""

    steps: Ints
    mw: Floats
    cost: Floats

    def rows(self, pools: range) -> Levels:
        """The same for neighbouring pools only."""
        part = slice(pools.start, pools.stop)
        return Levels(self.steps[part], self.mw[part], self.cost[part])


def floors_fit(demands: Sequence[DeploymentDemand], limits: SiteLimits) -> bool:
    """Whether every pool can have its minimum at the lowest useful cap."""
    mw = gpus = 0
    for demand in demands:
        own = 0
        for pool in demand.pools.values():
            held = pool.min_replicas * pool.gpus_per_replica
            own += held
            mw += held * (_floor_steps(pool) * STEP_MW - limits.reserve_mw_per_idle_gpu)
        if demand.max_gpus is not None and own > demand.max_gpus:
            return False
        gpus += own
    return gpus <= limits.gpus and mw <= limits.budget_mw - limits.reserve_mw_per_idle_gpu * limits.gpus


def without_floors(demand: DeploymentDemand) -> DeploymentDemand:
    """The same deployment with counts from zero: fewer replicas need a speed that rises as 1 / count."""
    return replace(demand, pools={name: _from_zero(pool) for name, pool in demand.pools.items()})


def _from_zero(pool: PoolDemand) -> PoolDemand:
    least, need = pool.min_replicas, pool.required_speed[0]
    below = [need * least / n if n else (np.inf if least else need) for n in range(least)]
    busy = [1.0 if n else 0.0 for n in range(least)]
    return replace(
        pool,
        min_replicas=0,
        required_speed=(*map(float, below), *pool.required_speed),
        utilisation=(*busy, *pool.utilisation),
    )


def floor_cap_mw(pool: PoolDemand) -> int:
    """The lowest cap that a serving GPU of the pool is given."""
    return _floor_steps(pool) * STEP_MW


def _floor_steps(pool: PoolDemand) -> int:
    return -(-max(pool.curve.useful_mw, pool.curve.min_mw) // STEP_MW)


def _ceiling_steps(pool: PoolDemand) -> int:
    useful = min(-(-pool.curve.p_u_mw // STEP_MW), pool.curve.max_mw // STEP_MW)
    return max(_floor_steps(pool), useful)


def build(
    demands: Sequence[DeploymentDemand], limits: SiteLimits, weights: Weights, least: Sequence[DeploymentDemand]
) -> Problem:
    """``least`` are the demands with the floors that were asked for: going below them has its price."""
    pools = [(d, name, pool) for d, demand in enumerate(demands) for name, pool in demand.pools.items()]
    ranks = {p: rank for rank, p in enumerate(sorted({demand.priority for demand in demands}))}
    classes = np.array([weights.priority ** ranks[demand.priority] for demand in demands])
    sizes = np.array([sum(max(1, p.wanted) * p.gpus_per_replica for p in d.pools.values()) for d in demands])
    worth = weights.sla * classes * sizes
    floors = [least[d].pools[name].min_replicas for d, name, _ in pools]
    missing = weights.sla * classes * 2
    ceilings = [_most_gpus(demands[d], pool, limits) for d, _, pool in pools]
    rows = [_row(pool, ceilings[i], weights, floors[i], missing[d]) for i, (d, _, pool) in enumerate(pools)]
    width = max((len(row[0]) for row in rows), default=1)
    steps = max((len(row[5]) for row in rows), default=1)
    owner = np.array([d for d, _, _ in pools], dtype=np.int64)
    need = _stack([row[1] for row in rows], width, np.inf)
    curve = np.array([row[6] for row in rows]).reshape(-1, 6)
    speed = _stack([row[5] for row in rows], steps, 0.0)
    best = np.array([np.min(row[1], initial=np.inf) for row in rows])
    carried = np.minimum(1.0, speed.max(axis=1) / np.maximum(best, TINY)) if rows else np.zeros(0)
    reserve = float(limits.reserve_mw_per_idle_gpu)
    return Problem(
        demands=tuple(demands),
        names=tuple(name for _, name, _ in pools),
        owner=owner,
        first=np.searchsorted(owner, np.arange(len(demands) + 1)),
        worth=worth,
        top=np.array([min((carried[i] for i in np.flatnonzero(owner == d)), default=1.0) for d in range(len(demands))]),
        most_gpus=np.array([np.inf if d.max_gpus is None else float(d.max_gpus) for d in demands]),
        count=_stack([row[0] for row in rows], width, 0).astype(np.int64),
        gpus=_stack(
            [row[0] * pool.gpus_per_replica for row, (_, _, pool) in zip(rows, pools, strict=True)], width, 0.0
        ),
        need=need,
        root=need ** curve[:, 2:3],
        busy=_stack([row[2] for row in rows], width, 0.0),
        fixed=_stack([row[3] for row in rows], width, np.inf),
        curve=curve,
        floor=np.array([_floor_steps(pool) for _, _, pool in pools], dtype=np.int64),
        ceiling=np.array([_ceiling_steps(pool) for _, _, pool in pools], dtype=np.int64),
        speed=speed,
        reserve_mw=reserve,
        budget_mw=max(0.0, limits.budget_mw - reserve * limits.gpus),
        gpu_limit=float(limits.gpus),
    )


def _most_gpus(demand: DeploymentDemand, pool: PoolDemand, limits: SiteLimits) -> int:
    """What a pool may hold while its partners have their floors."""
    if demand.max_gpus is None:
        return limits.gpus
    partners = sum(p.min_replicas * p.gpus_per_replica for p in demand.pools.values()) - (
        pool.min_replicas * pool.gpus_per_replica
    )
    return min(limits.gpus, demand.max_gpus - partners)


def _stack(rows: Sequence[Floats], width: int, filler: float) -> Floats:
    table = np.full((len(rows), width), filler, dtype=np.float64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table


def _row(
    pool: PoolDemand, ceiling: int, weights: Weights, floor: int, missing: float
) -> tuple[Floats, Floats, Floats, Floats, int, Floats, tuple[float, ...]]:
    """One pool: counts, needs, busy shares, fixed costs, lowest step, speeds by step, curve."""
    curve, size = pool.curve, pool.gpus_per_replica
    low, high = _floor_steps(pool), _ceiling_steps(pool)
    span = max(1, curve.p_u_mw - curve.p_s_mw)
    caps = np.arange(low, high + 1, dtype=np.float64) * STEP_MW
    speed = np.clip((caps - curve.p_s_mw) / span, 0.0, 1.0) ** curve.alpha
    count = np.arange(pool.min_replicas, pool.max_replicas + 1, dtype=np.float64)
    need = np.asarray(pool.required_speed, dtype=np.float64)
    need = np.where(need > TINY, need, 0.0)
    busy = np.asarray(pool.utilisation, dtype=np.float64)
    fixed = size * (weights.gpu * count + weights.churn * np.abs(count - pool.current_replicas))
    fixed += missing * size * np.maximum(0.0, floor - count)
    loaded = max(0.0, min(caps[0], curve.p_u_mw) - curve.idle_mw)
    at_floor = (
        count * size * weights.energy / 1000 * (curve.idle_mw + np.clip(busy / max(speed[0], TINY), 0.0, 1.0) * loaded)
    )
    keep = _worth_having(need, speed[0], fixed + at_floor) & (count * size <= ceiling)
    if not keep.any():
        keep[0] = True
    law = (curve.p_s_mw, span, 1 / curve.alpha, curve.idle_mw, curve.p_u_mw, weights.energy / 1000)
    numbers = tuple(map(float, law))
    return count[keep], need[keep], busy[keep], fixed[keep], low, speed, numbers


def _worth_having(need: Floats, slowest: float, cost: Floats) -> NDArray[np.bool_]:
    """Counts above the first that carries all at the lowest cap only add watts and GPUs, unless they cost less."""
    enough = np.flatnonzero(need <= slowest + TINY)
    if not len(enough):
        return np.ones(len(need), dtype=np.bool_)
    start = int(enough[0])
    keep = np.ones(len(need), dtype=np.bool_)
    best = np.minimum.accumulate(cost[start:])
    keep[start + 1 :] = cost[start + 1 :] < best[:-1]
    return keep


def levels(problem: Problem, rows: Ints, wanted: Floats) -> Levels:
    """The lowest caps that carry each level, with watts and cost. Closed form: no search.

    ``rows`` (R): the pools asked about; ``wanted`` (R, K): each one's levels.
    """
    pick = rows
    p_s, span, inverse, idle, p_u, energy = (problem.curve[pick, i, None, None] for i in range(6))
    asked = wanted[:, :, None]
    with np.errstate(invalid="ignore"):
        scaled = (asked**inverse) * problem.root[pick, None, :]
    scaled = np.fmax(scaled, 0.0)  # level 0 of a count that carries nothing is 0 times inf
    steps = np.ceil((p_s + span * scaled) / STEP_MW - 1e-6)
    floor, ceiling = problem.floor[pick, None, None], problem.ceiling[pick, None, None]
    # Level 0 asks nothing, and the law says P_s for it.
    steps = np.where((asked > 0) & (scaled > 0), np.maximum(steps, floor), floor)
    possible = steps <= ceiling
    index = np.minimum(steps, ceiling).astype(np.int64)
    speed = problem.speed[pick[:, None, None], index - floor]
    possible &= _carries(speed, asked, problem.need[pick, None, :])
    cap = index * float(STEP_MW)
    busy = np.minimum(problem.busy[pick, None, :] / np.maximum(speed, TINY), 1.0)
    draw = idle + busy * np.maximum(0.0, np.minimum(cap, p_u) - idle)
    gpus = problem.gpus[pick, None, :]
    cost = np.where(possible, problem.fixed[pick, None, :] + energy * gpus * draw, np.inf)
    return Levels(index, gpus * (cap - problem.reserve_mw), cost)


def _carries(speed: Floats, wanted: Floats, need: Floats) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return (wanted <= 0) | (speed >= wanted * need * (1 - 1e-6))


def carried(speed: Floats, need: Floats) -> Floats:
    """The share of the load that a speed carries: ``min(1, speed / need)``; a need of 0 is always met."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(need <= 0, 1.0, np.minimum(1.0, speed / need))


def name_of(problem: Problem, row: int) -> tuple[DeploymentId, PoolId]:
    return problem.demands[int(problem.owner[row])].deployment, problem.names[row]
