"""The best score of a site by looking at every combination of counts and caps: other code than the optimiser's.

Written from the problem's statement (``planner/core/allocation/optimiser/README.md``), sharing none of the optimiser's
functions. Deployments are merged one by one; of what is left only answers are dropped that another one beats in watts,
GPUs and score at once, so that nothing better is ever lost.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from planner.domain.demand import Allocation, DeploymentDemand, PoolDemand, SiteLimits, Weights
from planner.domain.pool import Role
from planner.domain.power import PowerCurve

STEP_MW = 5_000
AT_NEED, PREFILL_SPREAD, DECODE_SPREAD = 2.0, 0.20, 0.06
DRAIN, GIVE_UP, NOTHING = 0.05, 0.3, 1e-3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Option:
    """One (count, cap) of one pool."""

    count: int
    cap_mw: int
    good: float
    first: float
    """The share made good while replicas beyond those that run are still to start."""
    carried: float
    cost: float


def good(role: Role, speed: float, need: float) -> float:
    if need <= 0:
        return 1.0
    if speed <= 0 or math.isinf(need):
        return 0.0
    spreads = {Role.PREFILL: [PREFILL_SPREAD], Role.DECODE: [DECODE_SPREAD]}.get(role, [PREFILL_SPREAD, DECODE_SPREAD])
    return math.prod(float(ndtr(AT_NEED + math.log(speed / need) / spread)) for spread in spreads)


def option(pool: PoolDemand, count: int, cap_mw: int, weights: Weights) -> Option:
    curve, index = pool.curve, count - pool.min_replicas
    speed = speed_at(curve, cap_mw)
    need, gpus = pool.required_speed[index], count * pool.gpus_per_replica
    busy = min(1.0, pool.utilisation[index] / speed)
    lasting = max(cap_mw, -(-curve.useful_mw // STEP_MW) * STEP_MW)
    draw_watts = (curve.idle_mw + busy * (min(lasting, curve.p_u_mw) - curve.idle_mw)) / 1000
    changed = abs(count - pool.current_replicas) * pool.gpus_per_replica
    cost = gpus * (weights.gpu + weights.energy * draw_watts) + weights.churn * changed
    carried = 1.0 if need <= 0 else min(1.0, speed / need)
    ready = min(index, max(0, pool.current_replicas - pool.min_replicas))
    first = good(pool.role, speed, pool.required_speed[ready])
    return Option(count, cap_mw, good(pool.role, speed, need), first, carried, cost)


def speed_at(curve: PowerCurve, cap_mw: int) -> float:
    """By the law; below the lowest useful cap also by the straight line that touches the law, from the idle draw."""
    if cap_mw >= curve.p_u_mw:
        return 1.0
    law = max(0.0, (cap_mw - curve.p_s_mw) / (curve.p_u_mw - curve.p_s_mw)) ** curve.alpha
    if cap_mw >= curve.useful_mw or curve.min_mw > curve.p_s_mw:
        return law
    touch = math.ceil((curve.p_s_mw - curve.alpha * curve.idle_mw) / (1.0 - curve.alpha))
    top = ((touch - curve.p_s_mw) / (curve.p_u_mw - curve.p_s_mw)) ** curve.alpha
    if cap_mw >= touch:
        return law
    least = min(0.40, max(0.05, top * (curve.min_mw - curve.idle_mw) / (touch - curve.idle_mw)), top)
    return max(law, least + (top - least) * (cap_mw - curve.min_mw) / (touch - curve.min_mw))


def options(pool: PoolDemand, weights: Weights, parked_mw: int) -> list[Option]:
    curve = pool.curve
    lowest = min(curve.useful_mw, max(curve.min_mw, parked_mw))
    caps = range(-(-lowest // STEP_MW) * STEP_MW, min(curve.max_mw, curve.p_u_mw + STEP_MW - 1) + 1, STEP_MW)
    slow = speed_at(curve, curve.useful_mw)
    # More than the first count that carries everything at the lowest useful cap are never started, to be capped lower.
    plenty = (n for n, need in enumerate(pool.required_speed, pool.min_replicas) if need * pool.spare_speed <= slow)
    last = next((n for n in plenty if n >= pool.current_replicas), pool.max_replicas)
    counts = range(pool.min_replicas, last + 1)
    return [option(pool, count, cap, weights) for count in counts for cap in caps]


def worths(demands: Sequence[DeploymentDemand], weights: Weights) -> list[float]:
    """How much each deployment's good requests weigh: its class, times the GPUs that it wants uncapped."""
    ranks = {priority: rank for rank, priority in enumerate(sorted({d.priority for d in demands}))}
    return [
        weights.priority ** ranks[d.priority] * sum(max(1, p.wanted) * p.gpus_per_replica for p in d.pools.values())
        for d in demands
    ]


def score(demand: DeploymentDemand, taken: Sequence[Option]) -> float:
    held = max(1, sum(pool.current_replicas for pool in demand.pools.values()))
    given_up = sum(max(0, p.current_replicas - o.count) for p, o in zip(demand.pools.values(), taken, strict=True))
    later, first = math.prod(o.good for o in taken), math.prod(o.first for o in taken)
    made = demand.starting_part * first + (1 - demand.starting_part) * later + DRAIN * min(o.carried for o in taken)
    return made / (1 + DRAIN) * math.exp(-GIVE_UP * given_up / held)


def value(demands: Sequence[DeploymentDemand], answer: Allocation, weights: Weights) -> float:
    """What an allocation is worth, from its counts and caps alone: the sum of ``worth * ln(score)``."""
    total = 0.0
    for demand, worth in zip(demands, worths(demands, weights), strict=True):
        grants = [answer.pools[demand.deployment, name] for name in demand.pools]
        taken = [
            option(pool, grant.replicas, grant.setpoint.cap_mw, weights)
            for pool, grant in zip(demand.pools.values(), grants, strict=True)
        ]
        total += worth * math.log(max(NOTHING, score(demand, taken)))
    return total


def most(
    demands: Sequence[DeploymentDemand], limits: SiteLimits, weights: Weights, *, useful_only: bool = False
) -> float:
    """The best value of any allocation that keeps floors and limits. ``useful_only``: without lower caps."""
    reserve = limits.reserve_mw_per_idle_gpu
    budget = limits.budget_mw - reserve * limits.gpus
    whole = np.zeros((1, 3))
    for demand, worth in zip(demands, worths(demands, weights), strict=True):
        own = _frontier(demand, worth, reserve, weights, useful_only=useful_only)
        merged = (whole[:, None, :] + own[None, :, :]).reshape(-1, 3)
        whole = _undominated(merged[(merged[:, 0] <= limits.gpus) & (merged[:, 1] <= budget)])
    return float(whole[:, 2].max())


def _frontier(demand: DeploymentDemand, worth: float, reserve: int, weights: Weights, *, useful_only: bool) -> Floats:
    """(F, 3) GPUs, watts above reserve and value of a deployment's undominated combinations."""
    pools = list(demand.pools.values())
    held = max(1, sum(pool.current_replicas for pool in pools))
    tables = []
    for pool in pools:
        rows = [
            (
                o.count * pool.gpus_per_replica,
                o.count * pool.gpus_per_replica * (o.cap_mw - reserve),
                o.good,
                o.first,
                o.carried,
                math.exp(-GIVE_UP * max(0, pool.current_replicas - o.count) / held),
            )
            for o in options(pool, weights, pool.curve.useful_mw if useful_only else reserve)
        ]
        tables.append(np.array(rows))
    total = tables[0]
    for table in tables[1:]:
        one, two = total[:, None, :], table[None, :, :]
        joined = [
            one[..., 0] + two[..., 0],
            one[..., 1] + two[..., 1],
            one[..., 2] * two[..., 2],
            one[..., 3] * two[..., 3],
            np.minimum(one[..., 4], two[..., 4]),
            one[..., 5] * two[..., 5],
        ]
        total = np.stack(np.broadcast_arrays(*joined), axis=-1).reshape(-1, 6)
    if demand.max_gpus is not None:
        total = total[total[:, 0] <= demand.max_gpus]
    mean = demand.starting_part * total[:, 3] + (1 - demand.starting_part) * total[:, 2]
    made = (mean + DRAIN * total[:, 4]) / (1 + DRAIN) * total[:, 5]
    return _undominated(np.column_stack([total[:, 0], total[:, 1], worth * np.log(np.maximum(NOTHING, made))]))


def _undominated(table: Floats) -> Floats:
    """Rows that no row of as few GPUs and watts equals in value."""
    kept = []
    order = table[np.lexsort((-table[:, 2], table[:, 1], table[:, 0]))]
    for _, group in itertools.groupby(range(len(order)), key=lambda i: order[i, 0]):
        rows = order[list(group)]
        best = np.maximum.accumulate(rows[:, 2])
        kept.append(rows[np.r_[True, rows[1:, 2] > best[:-1]]])
    return np.concatenate(kept)
