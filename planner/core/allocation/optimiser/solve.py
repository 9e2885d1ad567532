"""Replica counts and power caps, chosen together under a site's watts and GPUs.

Owns the way from demands to an allocation: one deployment exactly, several by price, core search and polish. Must never
exceed a limit, and never answer differently to the same question. Why together: more GPUs at lower caps can carry more
load per watt than fewer at full power, and a budget cut in one place is best met in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.core.allocation.optimiser import exact, reduced_cost_search
from planner.core.allocation.optimiser.dual_prices import (
    FREE,
    Market,
    OwnLimits,
    Prices,
    Response,
    Search,
    own_limits,
    respond,
    search,
    within_own_limits,
)
from planner.core.allocation.optimiser.exact import Choice
from planner.core.allocation.optimiser.explain import Scarce, allocation
from planner.core.allocation.optimiser.problem import (
    Floats,
    Problem,
    build,
    carried,
    floors_fit,
    levels,
    without_floors,
)
from planner.domain.demand import Allocation, DeploymentDemand, SiteLimits
from planner.domain.weights import DEFAULT, Weights

COARSE = 12
FINE = 12
ZOOMS = 2
MAX_POLISHED = 8
"""More deployments than this are not polished one by one: their integrality gap is small, and a tick is short."""
POLISHES = 2
CORES = 3
"""A better answer narrows the gap, and so the core: it is searched again, up to so many times."""
MAX_LEVELS = 160
MAX_TABLE_CELLS = 6_000
"""Load levels looked at for each of a few deployments: as many times counts, and never fewer than ``MAX_LEVELS``."""


def allocate(demands: Sequence[DeploymentDemand], limits: SiteLimits, weights: Weights = DEFAULT) -> Allocation:
    """The cheapest counts and caps that fit; where the load does not, the largest share that ALL stages carry.

    Floors (``min_replicas`` at the lowest useful cap) are kept unless even they do not fit: then lower priority
    classes lose replicas first. Caps are multiples of 5 W. Deterministic; no state.
    """
    asked = [demand for demand in demands if demand.pools]
    if not asked:
        return Allocation(shortfall={demand.deployment: 0.0 for demand in demands})
    given = asked if floors_fit(asked, limits) else [without_floors(demand) for demand in asked]
    problem = build([_within_own_limit(demand) for demand in given], limits, weights, asked)
    limited = own_limits(problem)
    problem = within_own_limits(problem, limited)
    free = _free(problem, limited)
    scarce = Scarce(
        watts=free.mw > problem.budget_mw, gpus=free.gpus > problem.gpu_limit, floors=given is not asked, free=free
    )
    choices, prices = _solve(problem, limited)
    return allocation(problem, choices, prices, scarce, limits, asked)


def _within_own_limit(demand: DeploymentDemand) -> DeploymentDemand:
    """Three pools or more: each pool's ceiling is cut, largest holding first, until together they keep the limit."""
    if demand.max_gpus is None or len(demand.pools) <= 2:
        return demand
    most = {name: pool.max_replicas for name, pool in demand.pools.items()}
    sizes = {name: pool.gpus_per_replica for name, pool in demand.pools.items()}
    while sum(most[name] * sizes[name] for name in most) > demand.max_gpus:
        spare = {name: (most[name] - pool.min_replicas) for name, pool in demand.pools.items()}
        largest = max(spare, key=lambda name: (spare[name] * sizes[name] / max(1, demand.pools[name].wanted), name))
        if spare[largest] <= 0:
            break
        most[largest] -= 1
    cut = {
        name: replace(
            pool,
            required_speed=pool.required_speed[: most[name] - pool.min_replicas + 1],
            utilisation=pool.utilisation[: most[name] - pool.min_replicas + 1],
        )
        for name, pool in demand.pools.items()
    }
    return replace(demand, pools=cut)


def _market(problem: Problem, limited: OwnLimits, share: Floats) -> Market:
    rows = np.arange(len(problem.owner))
    return Market(problem, share, levels(problem, rows, share[problem.owner]), limited)


def _coarse(problem: Problem, count: int) -> Floats:
    return problem.top[:, None] * np.linspace(0.0, 1.0, count)[None, :]


def _free(problem: Problem, limited: OwnLimits) -> Response:
    """What everybody would take if watts and GPUs were free."""
    return respond(_market(problem, limited, _coarse(problem, 2)), FREE)


def _solve(problem: Problem, limited: OwnLimits) -> tuple[list[Choice], Prices]:
    if problem.deployments == 1 and exact.combinations(problem, 0) <= exact.MAX_COMBINATIONS:
        only = exact.best(problem, 0, problem.budget_mw, problem.gpu_limit)
        if only is not None:
            return [only], FREE
    return _shared(problem, limited)


@dataclass(slots=True)
class _Best:
    """The cheapest answer so far. Short-lived: filled by one call of ``_shared``."""

    choices: list[Choice]
    cost: float

    def take(self, market: Market, found: Search) -> None:
        if found.fitting is not None:
            self.offer(_as_choices(market, found.fitting))

    def offer(self, choices: list[Choice] | None) -> None:
        if choices is not None and (cost := sum(choice.cost for choice in choices)) < self.cost:
            self.choices, self.cost = choices, cost


def _shared(problem: Problem, limited: OwnLimits) -> tuple[list[Choice], Prices]:
    few = problem.deployments <= MAX_POLISHED
    market = _market(problem, limited, _coarse(problem, COARSE))
    found = search(market, FREE)
    best = _Best([], np.inf)
    best.take(market, found)
    if found.tightest.prices != FREE:
        for share in _finer(problem, market, found, few=few):
            market = _market(problem, limited, share)
            found = search(market, found.tightest.prices)
            best.take(market, found)
    if few:
        _polish(problem, best)
    width = reduced_cost_search.width_for(problem.deployments)
    for _ in range(CORES if few else 1):
        gap = best.cost - found.tightest.bound
        if gap <= 0:
            break
        before = best.cost
        best.offer(
            reduced_cost_search.combine(
                problem, reduced_cost_search.columns(market, found.tightest, gap, width), gap, width
            )
        )
        if few:
            _polish(problem, best)
        if best.cost >= before - 1e-6:
            break
    return best.choices, found.tightest.prices


def _finer(problem: Problem, market: Market, found: Search, *, few: bool) -> Iterator[Floats]:
    """Levels to look at once watts or GPUs have a price: all that matter for a few deployments, else a zoom."""
    if few:
        exactly = [_exact_shares(problem, d) for d in range(problem.deployments)]
        most = max(MAX_LEVELS, MAX_TABLE_CELLS // problem.need.shape[1])
        yield _table([_thin(row, most) for row in exactly])
        if max(map(len, exactly)) > most:
            middle = found.tightest.at(market.share)
            yield _table([_near(row, middle[d], most) for d, row in enumerate(exactly)])
        return
    share, step, at = market.share, problem.top / (COARSE - 1), found.tightest
    for _ in range(ZOOMS):
        share = _around(problem, share, at, step)
        step = step * 2 / (FINE - 1)
        yield share


def _exact_shares(problem: Problem, d: int) -> Floats:
    return exact.shares(problem, np.array(problem.pools_of(d), dtype=np.int64), float(problem.top[d]))


def _thin(row: Floats, most: int) -> Floats:
    """At most ``most`` of the levels, evenly, both ends among them."""
    if len(row) <= most:
        return row
    return row[np.unique(np.linspace(0, len(row) - 1, most).round().astype(np.int64))]


def _near(row: Floats, middle: float, most: int) -> Floats:
    """Every level near ``middle``, and a thin choice of the others."""
    start = int(np.clip(np.searchsorted(row, middle) - most // 3, 0, max(0, len(row) - 2 * most // 3)))
    return np.unique(np.concatenate([_thin(row, most // 3), row[start : start + 2 * most // 3]]))


def _table(rows: list[Floats]) -> Floats:
    """Rows of different lengths as one array: short ones repeat their top."""
    width = max(map(len, rows))
    return np.array([np.pad(row, (0, width - len(row)), mode="edge") for row in rows])


def _around(problem: Problem, share: Floats, response: Response, step: Floats) -> Floats:
    """Levels near each deployment's choice, with zero and the top kept: a load is seldom best shed at a grid point."""
    d = np.arange(problem.deployments)
    middle = response.at(share)
    near = middle[:, None] + step[:, None] * np.linspace(-1.0, 1.0, FINE)[None, :]
    near = np.clip(near, 0.0, problem.top[:, None])
    return np.sort(np.concatenate([near, np.zeros((len(d), 1)), problem.top[:, None]], axis=1), axis=1)


def _as_choices(market: Market, response: Response) -> list[Choice]:
    """All deployments' choices at once: one by one they cost more than the price search that found them."""
    problem, at = market.problem, market.at
    rows = np.arange(len(problem.owner))
    level, columns = response.level[problem.owner], response.columns
    steps = at.steps[rows, level, columns]
    share = carried(problem.speed[rows, steps - problem.floor], problem.need[rows, columns])
    first = problem.first[:-1]
    share = np.minimum(1.0, np.minimum.reduceat(share, first))
    cost = np.add.reduceat(at.cost[rows, level, columns], first) + problem.worth * (1 - share)
    mw = np.add.reduceat(at.mw[rows, level, columns], first)
    gpus = np.add.reduceat(problem.gpus[rows, columns], first)
    numbers = np.array([cost, mw, gpus, share]).T.tolist()
    counts, caps, ends = columns.tolist(), steps.tolist(), problem.first.tolist()
    return [
        Choice(tuple(counts[start:end]), tuple(caps[start:end]), *row)
        for start, end, row in zip(ends, ends[1:], numbers, strict=False)
    ]


def _polish(problem: Problem, best: _Best) -> None:
    """Each deployment in turn, exactly, with what the others leave."""
    for _ in range(POLISHES):
        before = best.cost
        for d in range(problem.deployments):
            if exact.combinations(problem, d) > exact.MAX_COMBINATIONS:
                continue
            mw = problem.budget_mw - sum(c.mw for i, c in enumerate(best.choices) if i != d)
            gpus = problem.gpu_limit - sum(c.gpus for i, c in enumerate(best.choices) if i != d)
            alone = exact.best(problem, d, mw, gpus)
            if alone is not None:
                best.offer([alone if i == d else choice for i, choice in enumerate(best.choices)])
        if best.cost >= before - 1e-6:
            return
