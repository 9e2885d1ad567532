"""Replica counts and power caps, chosen together under a site's watts and GPUs.

Owns the way from demands to an allocation: with speed to spare where that fits, otherwise by the share of requests that
will be good; one deployment exactly, several by price and pairs. Must never exceed a limit, and must always return the
same answer to the same input. Why together: more GPUs at lower caps can carry more load per watt than fewer at full
power, and a budget cut in one place is best met in another.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from planner.core.allocation.optimiser import dense, pairs, prices, staircase
from planner.core.allocation.optimiser.explain import Solution, allocation
from planner.core.allocation.optimiser.padded_tables import Floats, Ints
from planner.core.allocation.optimiser.pairs import Frontier
from planner.core.allocation.optimiser.prices import Found, Market
from planner.core.allocation.optimiser.problem import Problem, build, minimums_fit
from planner.core.allocation.optimiser.staircase import NOTHING, Others, Pairs, over_time, score
from planner.domain.demand import DEFAULT_WEIGHTS, Allocation, DeploymentDemand, SiteLimits, Weights

REACH = 3
"""With many deployments, counts within this distance of what prices chose are examined again."""
ROUNDS = 4
THIRD = 256
"""Number of a third pool's options that are examined, evenly spread over its caps; the pairs after it are exact."""


def allocate(demands: Sequence[DeploymentDemand], limits: SiteLimits, weights: Weights = DEFAULT_WEIGHTS) -> Allocation:
    """The cheapest counts and caps that carry everything with speed to spare; else those that make most good.

    Floors (``min_replicas`` at the lowest cap) are kept unless even they do not fit: then lower priority
    classes lose replicas first. Caps are multiples of 5 W. Deterministic; no state.
    """
    asked = [demand for demand in demands if demand.pools]
    if not asked:
        return Allocation(shortfall={demand.deployment: 0.0 for demand in demands})
    floors = not minimums_fit(asked, limits)
    problem = build(asked, limits, weights, from_zero=floors)
    if (solution := _plenty(problem.without_least_speed())) is None:
        problem, solution = _short(problem)
    elif problem.least.any():
        solution = _plenty(problem) or solution
    return allocation(problem, solution, limits, floors=floors)


def _plenty(problem: Problem) -> Solution | None:
    """The cheapest answer that carries all load with speed to spare; None where none was found."""
    if not problem.can_carry:
        return None
    if problem.deployments == 1 and len(problem.owner) <= 2:
        return _plenty_alone(problem)
    market = prices.plenty(problem)
    free = market.respond(0.0, 0.0)
    if not free.possible:
        return None
    if free.fits(problem):
        return Solution(free.columns, free.steps, plenty=True, watts=False, gpus=False)
    if free.mw.sum() > problem.budget_mw and _least_mw(market) > problem.budget_mw:
        return None
    found = prices.search(market)

    def cheap(rows: Sequence[int], columns: Ints, steps: Ints) -> Floats:
        saved: Floats = -np.sum([problem.plenty_cost[row, columns[k]] for k, row in enumerate(rows)], axis=0)
        return saved

    picked = _paired(market, found, cheap)
    if picked is None:
        return None
    watts, gpus = bool(free.mw.sum() > problem.budget_mw), bool(free.gpus.sum() > problem.gpu_limit)
    return Solution(*picked, plenty=True, watts=watts, gpus=gpus)


def _plenty_alone(problem: Problem) -> Solution | None:
    """The cheapest such answer for one deployment of one or two pools, by comparing every pair of counts."""
    left, right, pools = 0, len(problem.owner) - 1 or 1, len(problem.owner)
    drawn = problem.plenty_mw[left][:, None] + problem.plenty_mw[right]
    held = problem.gpus[left][:, None] + problem.gpus[right]
    fitting = (drawn <= problem.budget_mw) & (held <= min(problem.gpu_limit, float(problem.own_gpus[0])))
    if not fitting.any():
        return None
    cost, steps = problem.plenty_cost, problem.plenty_steps
    total = np.where(held <= problem.own_gpus[0], cost[left][:, None] + cost[right], np.inf)
    free = divmod(int(total.argmin()), total.shape[1])
    watts, cards = bool(drawn[free] > problem.budget_mw), bool(held[free] > problem.gpu_limit)
    column = np.array(divmod(int(np.where(fitting, total, np.inf).argmin()), total.shape[1]))
    taken = steps[[left, right], column][:pools]
    return Solution(column[:pools], taken, plenty=True, watts=watts, gpus=cards)


def _least_mw(market: Market) -> float:
    """Milliwatts above reserve that all pools together need at least, whatever their counts."""
    least = np.where(np.isfinite(market.value), market.mw, np.inf).min(axis=1)
    return float(np.minimum.reduceat(least, market.problem.listed.start)[:-1].sum())


def _short(problem: Problem) -> tuple[Problem, Solution]:
    """The answer that makes most requests good where not all load fits, and the problem in whose cap steps it is."""
    columns = steps = np.zeros(len(problem.owner), dtype=np.int64)
    mw, gpus = np.array([problem.budget_mw]), np.array([problem.gpu_limit])
    if problem.deployments > 1:
        if int(np.diff(problem.first).max()) >= pairs.MOST_POOLS:
            problem = problem.useful_only()  # the frontiers of three pools hold too few options for more caps
        elif problem.deployments > prices.FEW:
            problem = problem.coarse()
        market = prices.short(problem)
        found = prices.search(market)
        picked = _paired(market, found, _joint(problem))
        if picked is not None:
            columns, steps = picked
        held = problem.gpus[np.arange(len(columns)), columns]
        first = problem.first[:-1]
        mw = np.add.reduceat(held * problem.caps[np.arange(len(columns)), steps], first)
        gpus = np.add.reduceat(held, first)
    gpus = np.minimum(gpus, problem.own_gpus)
    columns, steps = _exactly(problem, columns, steps, mw, gpus)
    return problem, Solution(columns, steps, plenty=False)


def _joint(problem: Problem) -> pairs.JointValue:
    def joint(rows: Sequence[int], columns: Ints, steps: Ints) -> Floats:
        share, first, carried, kept = np.ones((4, columns.shape[1]))
        for k, row in enumerate(rows):
            share = share * problem.options.share[row, columns[k], steps[k]]
            first = first * problem.options.first[row, columns[k], steps[k]]
            carried = np.minimum(carried, problem.options.carried[row, columns[k], steps[k]])
            kept = kept * problem.kept[row, columns[k]]
        owner = problem.owner[rows[0]]
        share = over_time(share, first, problem.starting[owner])
        logs = np.log(np.maximum(NOTHING, score(share, carried, kept)))
        total: Floats = problem.worth[owner] * logs
        return total

    return joint


def _paired(market: Market, found: Found, joint: pairs.JointValue) -> tuple[Ints, Ints] | None:
    """Columns and steps by pool: the prices' answer, for a few deployments made better pair by pair."""
    problem = market.problem
    if problem.deployments > prices.FEW or max(np.diff(problem.first)) > pairs.MOST_POOLS:
        return None if found.fitting is None else (found.fitting.columns, found.fitting.steps)
    frontiers = [
        pairs.frontier(market, list(problem.pools_of(d)), float(problem.own_gpus[d]), joint, found)
        for d in range(problem.deployments)
    ]
    start = _places(problem, frontiers, found)
    if start is None:
        return None
    places = pairs.shared(frontiers, problem.budget_mw, problem.gpu_limit, start)
    columns = np.concatenate([f.columns[:, place] for f, place in zip(frontiers, places, strict=True)])
    steps = np.concatenate([f.steps[:, place] for f, place in zip(frontiers, places, strict=True)])
    return columns, steps


def _places(problem: Problem, frontiers: Sequence[Frontier], found: Found) -> list[int] | None:
    """Where the prices' answer lies on the frontiers; where they found none, the most frugal answer, if it fits."""
    if found.fitting is not None:
        limits = zip(frontiers, found.fitting.mw, found.fitting.gpus, strict=True)
        places = [f.dearest(np.array([mw]), np.array([gpus])) for f, mw, gpus in limits]
        if all(np.isfinite(value[0]) for value, _ in places):
            return [int(place[0]) for _, place in places]
    fewest = [0] * len(frontiers)
    mw, gpus = sum(float(f.mw[0]) for f in frontiers), sum(float(f.gpus[0]) for f in frontiers)
    return fewest if mw <= problem.budget_mw and gpus <= problem.gpu_limit else None


def _exactly(problem: Problem, columns: Ints, steps: Ints, mw: Floats, gpus: Floats) -> tuple[Ints, Ints]:
    """Each deployment's best within its own watts and GPUs; a few get in turn what the others leave."""
    columns, steps = columns.copy(), steps.copy()
    if problem.deployments > prices.FEW:
        around, start = problem.near(columns, REACH)
        columns -= start[:-1]
        for stage in prices.stages(around):
            _polish(around, stage, columns, steps, mw, gpus)
        return columns + start[:-1], steps
    for stage in prices.stages(problem):
        _polish(problem, stage, columns, steps, mw, gpus)
    if problem.deployments == 1:
        return columns, steps
    rows, first = np.arange(len(columns)), problem.first[:-1]
    for d in np.argsort(-problem.worth, kind="stable").tolist():
        held = problem.gpus[rows, columns]
        left_mw = problem.budget_mw - float((held * problem.caps[rows, steps]).sum())
        left_gpus = problem.gpu_limit - float(held.sum())
        more_mw = np.add.reduceat(held * problem.caps[rows, steps], first) + left_mw
        more_gpus = np.minimum(np.add.reduceat(held, first) + left_gpus, problem.own_gpus)
        own = prices.SamePools(np.array([d]), np.array([list(problem.pools_of(d))]))
        _polish(problem, own, columns, steps, more_mw, more_gpus)
    return columns, steps


def _polish(problem: Problem, stage: prices.SamePools, columns: Ints, steps: Ints, mw: Floats, gpus: Floats) -> None:
    """Rewrites the answers of ``stage``; three pools or more: three and then two at a time, until nothing changes."""
    members, rows = stage.deployments, stage.rows
    if rows.shape[1] <= 2:
        if len(members) == 1 and _at_once(problem, rows[0], mw[members], gpus[members], columns, steps):
            return
        right = rows[:, 1] if rows.shape[1] == 2 else np.full(len(rows), len(problem.owner))
        size = problem.width * (problem.last + 1)
        turned = size[rows[:, 0]] > size[right]
        duo = Pairs(np.where(turned, right, rows[:, 0]), np.where(turned, rows[:, 0], right))
        _take(problem, duo, mw[members], gpus[members], staircase.no_others(len(rows)), columns, steps)
        return
    for _ in range(ROUNDS):
        before = columns[rows].copy(), steps[rows].copy()
        for member, own in zip(members, rows, strict=True):
            for three in combinations(own.tolist(), 3):
                _three(problem, three, own, float(mw[member]), float(gpus[member]), columns, steps)
        for one, two in combinations(range(rows.shape[1]), 2):
            others, left_mw, left_gpus = _rest(problem, np.delete(rows, (one, two), axis=1), columns, steps)
            duo = Pairs(rows[:, one], rows[:, two])
            _take(problem, duo, mw[members] - left_mw, gpus[members] - left_gpus, others, columns, steps)
        if np.array_equal(before[0], columns[rows]) and np.array_equal(before[1], steps[rows]):
            return


def _at_once(problem: Problem, rows: Ints, mw: Floats, gpus: Floats, columns: Ints, steps: Ints) -> bool:
    """Writes the best of one deployment of up to two small pools; False where its table would be too large."""
    left, right = int(rows[0]), int(rows[1]) if len(rows) == 2 else len(problem.owner)
    if problem.width[left] * (problem.last[left] + 1) > problem.width[right] * (problem.last[right] + 1):
        left, right = right, left
    if not dense.fits(problem, left, right):
        return False
    if (found := dense.best(problem, left, right, float(mw[0]), float(gpus[0]))) is not None:
        for row, column, step in zip((left, right), *found, strict=True):
            if row < len(columns):
                columns[row], steps[row] = column, step
    return True


def _rest(problem: Problem, rest: Ints, columns: Ints, steps: Ints) -> tuple[Others, Floats, Floats]:
    """(D) what the pools ``rest`` (D, K) make good, and the watts and GPUs that they hold."""
    held = problem.gpus[rest, columns[rest]]
    others = Others(
        problem.options.share[rest, columns[rest], steps[rest]].prod(axis=1),
        problem.options.first[rest, columns[rest], steps[rest]].prod(axis=1),
        problem.options.carried[rest, columns[rest], steps[rest]].min(axis=1, initial=1.0),
        problem.kept[rest, columns[rest]].prod(axis=1),
    )
    return others, (held * problem.caps[rest, steps[rest]]).sum(axis=1), held.sum(axis=1)


def _three(
    problem: Problem, three: tuple[int, ...], own: Ints, mw: float, gpus: float, columns: Ints, steps: Ints
) -> None:
    """The best of three pools of one deployment: for every option of one of them the best of the other two."""
    third, one, two = sorted(three, key=lambda row: int(problem.width[row] * (problem.last[row] + 1)))
    rest = np.setdiff1d(own, three)[None, :]
    others, rest_mw, rest_gpus = _rest(problem, rest, columns, steps)
    coarse = -(-int(problem.width[third] * (problem.last[third] + 1)) // THIRD)
    column, step = np.nonzero(problem.possible[third, :, ::coarse])
    step = step * coarse
    held = problem.gpus[third, column]
    fixed = Others(
        others.share * problem.options.share[third, column, step],
        others.first * problem.options.first[third, column, step],
        np.minimum(others.carried, problem.options.carried[third, column, step]),
        others.kept * problem.kept[third, column],
    )
    duo = Pairs(np.full(len(column), one), np.full(len(column), two))
    left_mw = mw - rest_mw - held * problem.caps[third, step]
    picked = staircase.best(problem, duo, left_mw, gpus - rest_gpus - held, fixed)
    if (most := float(picked.score.max())) < 0.0:
        return
    near = np.flatnonzero(picked.score >= most * (1.0 - problem.alike) - staircase.CLOSE)
    cost = problem.cost(third, column[near], step[near])
    for row, taken, cap in zip((one, two), picked.columns, picked.steps, strict=True):
        cost = cost + problem.cost(row, taken[near], cap[near])
    chosen = near[int(cost.argmin())]
    columns[third], steps[third] = column[chosen], step[chosen]
    for row, taken, cap in zip((one, two), picked.columns, picked.steps, strict=True):
        columns[row], steps[row] = taken[chosen], cap[chosen]


def _take(problem: Problem, duo: Pairs, mw: Floats, gpus: Floats, others: Others, columns: Ints, steps: Ints) -> None:
    """Writes the best of two pools into ``columns`` and ``steps``, where anything fits."""
    picked = staircase.best(problem, duo, mw, gpus, others)
    for rows, column, step in zip((duo.left, duo.right), picked.columns, picked.steps, strict=True):
        here = (picked.score >= 0.0) & (rows < len(columns))
        columns[rows[here]], steps[rows[here]] = column[here], step[here]
