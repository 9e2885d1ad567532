"""The same problem as a mixed-integer programme for HiGHS: an exact answer from other code than ours.

Written from the problem's statement (``planner/core/allocation/optimiser/README.md``), sharing none of the
optimiser's functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

from planner.domain.demand import Allocation, DeploymentDemand, PoolDemand, SiteLimits
from planner.domain.weights import Weights

STEP_MW = 5_000


@dataclass(frozen=True, slots=True)
class Option:
    """One (count, cap) of one pool."""

    count: int
    cap_mw: int
    gpus: int
    carried: float
    cost: float


def option(pool: PoolDemand, count: int, cap_mw: int, weights: Weights) -> Option:
    curve = pool.curve
    index = count - pool.min_replicas
    speed = 1.0 if cap_mw >= curve.p_u_mw else ((cap_mw - curve.p_s_mw) / (curve.p_u_mw - curve.p_s_mw)) ** curve.alpha
    need = pool.required_speed[index]
    gpus = count * pool.gpus_per_replica
    busy = min(1.0, pool.utilisation[index] / speed)
    draw_watts = (curve.idle_mw + busy * (min(cap_mw, curve.p_u_mw) - curve.idle_mw)) / 1000
    changed = abs(count - pool.current_replicas) * pool.gpus_per_replica
    cost = gpus * (weights.gpu + weights.energy * draw_watts) + weights.churn * changed
    return Option(count, cap_mw, gpus, 1.0 if need <= 0 else min(1.0, speed / need), cost)


def options(pool: PoolDemand, weights: Weights) -> list[Option]:
    curve = pool.curve
    caps = range(-(-curve.useful_mw // STEP_MW) * STEP_MW, min(curve.max_mw, curve.p_u_mw + STEP_MW - 1) + 1, STEP_MW)
    counts = range(pool.min_replicas, pool.max_replicas + 1)
    every = [option(pool, count, cap, weights) for count in counts for cap in caps]
    # An option that carries no more than a cheaper one of no more watts and GPUs is in no best answer.
    best: list[Option] = []
    for o in sorted(every, key=lambda o: (o.gpus, o.cap_mw, o.cost)):
        if not any(
            b.gpus <= o.gpus and b.gpus * b.cap_mw <= o.gpus * o.cap_mw and b.cost <= o.cost and b.carried >= o.carried
            for b in best
            if b.count == o.count
        ):
            best.append(o)
    return best


def worths(demands: Sequence[DeploymentDemand], weights: Weights) -> list[float]:
    """What the whole load of each deployment is worth, in watts."""
    ranks = {priority: rank for rank, priority in enumerate(sorted({d.priority for d in demands}))}
    return [
        weights.sla
        * weights.priority ** ranks[d.priority]
        * sum(max(1, p.wanted) * p.gpus_per_replica for p in d.pools.values())
        for d in demands
    ]


def value(demands: Sequence[DeploymentDemand], answer: Allocation, weights: Weights) -> float:
    """The objective of an allocation, from its counts and caps alone."""
    total = 0.0
    for demand, worth in zip(demands, worths(demands, weights), strict=True):
        share = 1.0
        for name, pool in demand.pools.items():
            grant = answer.pools[demand.deployment, name]
            taken = option(pool, grant.replicas, grant.cap_mw, weights)
            total += taken.cost
            share = min(share, taken.carried)
        total += worth * (1 - share)
    return total


def least(demands: Sequence[DeploymentDemand], limits: SiteLimits, weights: Weights, gap: float = 1e-6) -> float | None:
    """The objective of the best answer, to a relative ``gap``; None where there is none."""
    pools = [(d, pool) for d, demand in enumerate(demands) for pool in demand.pools.values()]
    choices = [(row, o) for row, (_, pool) in enumerate(pools) for o in options(pool, weights)]
    size, worth = len(choices), worths(demands, weights)
    cost = np.array([o.cost for _, o in choices] + worth)
    reserve = limits.reserve_mw_per_idle_gpu
    watts = (limits.budget_mw - reserve * limits.gpus) / 1000
    rows: list[tuple[Mapping[int, float], float, float]] = [
        ({i: o.gpus * (o.cap_mw - reserve) / 1000 for i, (_, o) in enumerate(choices)}, -np.inf, watts),
        ({i: float(o.gpus) for i, (_, o) in enumerate(choices)}, -np.inf, float(limits.gpus)),
    ]
    for row, (d, _) in enumerate(pools):
        mine = [(i, o) for i, (r, o) in enumerate(choices) if r == row]
        rows.append(({i: 1.0 for i, _ in mine}, 1.0, 1.0))
        rows.append(({size + d: 1.0, **{i: o.carried for i, o in mine}}, 1.0, np.inf))
    for d, demand in enumerate(demands):
        if demand.max_gpus is not None:
            own = {i: float(o.gpus) for i, (r, o) in enumerate(choices) if pools[r][0] == d}
            rows.append((own, -np.inf, float(demand.max_gpus)))
    matrix = lil_matrix((len(rows), len(cost)))
    for r, (terms, _, _) in enumerate(rows):
        for i, factor in terms.items():
            matrix[r, i] = factor
    found = milp(
        cost,
        constraints=LinearConstraint(matrix.tocsr(), [lo for _, lo, _ in rows], [hi for _, _, hi in rows]),
        integrality=np.array([1] * size + [0] * len(demands)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": gap, "time_limit": 60.0},
    )
    return None if found.x is None else float(found.fun)
