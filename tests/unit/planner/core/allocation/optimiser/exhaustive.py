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
    speed = 1.0 if cap_mw >= curve.p_u_mw else ((cap_mw - curve.p_s_mw) / (curve.p_u_mw - curve.p_s_mw)) ** curve.alpha
    need, gpus = pool.required_speed[index], count * pool.gpus_per_replica
    busy = min(1.0, pool.utilisation[index] / speed)
    draw_watts = (curve.idle_mw + busy * (min(cap_mw, curve.p_u_mw) - curve.idle_mw)) / 1000
    changed = abs(count - pool.current_replicas) * pool.gpus_per_replica
    cost = gpus * (weights.gpu + weights.energy * draw_watts) + weights.churn * changed
    carried = 1.0 if need <= 0 else min(1.0, speed / need)
    return Option(count, cap_mw, good(pool.role, speed, need), carried, cost)


def options(pool: PoolDemand, weights: Weights) -> list[Option]:
    curve = pool.curve
    caps = range(-(-curve.useful_mw // STEP_MW) * STEP_MW, min(curve.max_mw, curve.p_u_mw + STEP_MW - 1) + 1, STEP_MW)
    counts = range(pool.min_replicas, pool.max_replicas + 1)
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
    made = math.prod(o.good for o in taken) + DRAIN * min(o.carried for o in taken)
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


def most(demands: Sequence[DeploymentDemand], limits: SiteLimits, weights: Weights) -> float:
    """The best value of any allocation that keeps floors and limits."""
    reserve = limits.reserve_mw_per_idle_gpu
    budget = limits.budget_mw - reserve * limits.gpus
    whole = np.zeros((1, 3))
    for demand, worth in zip(demands, worths(demands, weights), strict=True):
        own = _frontier(demand, worth, reserve, weights)
        merged = (whole[:, None, :] + own[None, :, :]).reshape(-1, 3)
        whole = _undominated(merged[(merged[:, 0] <= limits.gpus) & (merged[:, 1] <= budget)])
    return float(whole[:, 2].max())


def _frontier(demand: DeploymentDemand, worth: float, reserve: int, weights: Weights) -> Floats:
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
                o.carried,
                math.exp(-GIVE_UP * max(0, pool.current_replicas - o.count) / held),
            )
            for o in options(pool, weights)
        ]
        tables.append(np.array(rows))
    total = tables[0]
    for table in tables[1:]:
        one, two = total[:, None, :], table[None, :, :]
        joined = [
            one[..., 0] + two[..., 0],
            one[..., 1] + two[..., 1],
            one[..., 2] * two[..., 2],
            np.minimum(one[..., 3], two[..., 3]),
            one[..., 4] * two[..., 4],
        ]
        total = np.stack(np.broadcast_arrays(*joined), axis=-1).reshape(-1, 5)
    if demand.max_gpus is not None:
        total = total[total[:, 0] <= demand.max_gpus]
    made = (total[:, 2] + DRAIN * total[:, 3]) / (1 + DRAIN) * total[:, 4]
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
