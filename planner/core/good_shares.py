"""Good requests in the record: what the last tick predicted beside what was measured, and what a gateway should shed.

Must never change a decision: the planner cannot shed load itself, it only states what would help.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from planner.core.allocation.optimiser.shares import needs
from planner.core.sizing.deployment import SizedDeployment
from planner.core.sizing.load_forecast import RATE
from planner.core.sizing.options import at_count
from planner.core.state import PoolGoal
from planner.domain.config import DeploymentConfig
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.plan import ClassShed, DeploymentPlan, GoodShare, ShedAdvice
from planner.domain.pool import Role
from planner.domain.reading import value_or_none

PROMPTS, ANSWERS, REQUESTS = "prompts", "answers", "requests"
PHASE_OF: Mapping[Role, str] = {Role.PREFILL: PROMPTS, Role.DECODE: ANSWERS, Role.AGGREGATED: REQUESTS}


def beside(sized: SizedDeployment) -> dict[str, GoodShare]:
    """By phase: the share that the last tick predicted for the interval just read, and the measured share.

    A phase of which neither is known is absent.
    """
    found = {}
    for phase in dict.fromkeys([PHASE_OF[pool.role] for pool in sized.config.pools.values()]):
        predicted, measured = _predicted(sized, phase), _measured(sized, phase)
        if predicted is not None or measured is not None:
            found[phase] = GoodShare(predicted, measured)
    return found


def _predicted(sized: SizedDeployment, phase: str) -> float | None:
    goals = sized.state.pending.goals
    shares = []
    for name, pool in sized.config.pools.items():
        if PHASE_OF[pool.role] != phase:
            continue
        if (goal := goals.get(name)) is None or goal.good is None:
            return None
        shares.append(goal.good)
    return math.prod(shares)


def _measured(sized: SizedDeployment, phase: str) -> float | None:
    if (seen := sized.seen) is None:
        return None
    prompts, answers = value_or_none(seen.ttft_within), value_or_none(seen.itl_within)
    if phase == PROMPTS:
        return prompts
    if phase == ANSWERS:
        return answers
    return None if prompts is None or answers is None else prompts * answers


def shed(
    sized: SizedDeployment, goals: Mapping[PoolId, PoolGoal], counts: Mapping[PoolId, int], late: float
) -> ShedAdvice | None:
    """How much of the load ``counts`` at their goals' speeds cannot serve in time; None where nothing is late.

    ``n`` replicas serve the share ``f`` of the load as ``n / f`` replicas serve all of it, because each has the same
    work. So the table of speeds by count shows how much of the load each phase can take; the smallest share decides.
    """
    if late <= 0.0:
        return None
    taken = 1.0
    for name, pool in sized.config.pools.items():
        options, goal = sized.options.get(name), goals.get(name)
        if options is None or goal is None:
            continue
        for felt in needs(pool.role, options.speed, options.arriving, options.prompts):
            if felt:
                taken = min(taken, admitted(felt, counts[name], goal.speed))
    share = 1.0 - taken
    rate = sized.learned.forecasts.get(RATE)
    return ShedAdvice(sized.config.priority, late, share, None if rate is None else share * rate.mean)


def with_classes(
    plans: Mapping[DeploymentId, DeploymentPlan], configs: Mapping[DeploymentId, DeploymentConfig]
) -> dict[DeploymentId, DeploymentPlan]:
    """The plans, each advice to shed with what it amounts to by class of service on the deployment's site."""
    members: defaultdict[SiteId, defaultdict[str, list[DeploymentPlan]]] = defaultdict(lambda: defaultdict(list))
    for name, plan in plans.items():
        if (called := configs[name].service_class) is not None:
            members[configs[name].site][called].append(plan)
    advice = {
        site: {called: class_shed(own) for called, own in sorted(classes.items()) if any(one.shed for one in own)}
        for site, classes in members.items()
    }
    return {
        name: plan
        if plan.shed is None
        else replace(plan, shed=replace(plan.shed, by_class=advice.get(configs[name].site, {})))
        for name, plan in plans.items()
    }


def class_shed(plans: Iterable[DeploymentPlan]) -> ClassShed:
    """The advice of these deployments together: rates add up, and shares are weighed by them.

    A deployment that serves all its load counts with its rate, where that is forecast.
    """
    arriving = late = shedding = 0.0
    for plan in plans:
        rate = plan.forecasts.get(RATE)
        if plan.shed is not None and (rate is None or plan.shed.shed_req_per_s is None):
            return ClassShed()
        arriving += 0.0 if rate is None else rate.mean
        if plan.shed is not None and rate is not None:
            late += plan.shed.late_share * rate.mean
            shedding += plan.shed.shed_share * rate.mean
    if arriving <= 0.0:
        return ClassShed()
    return ClassShed(arriving, late / arriving, shedding / arriving, shedding)


def admitted(felt: Sequence[float], count: int, speed: float) -> float:
    """The share of the load, 0..1, at which ``count`` replicas need no more than ``speed``.

    ``felt``: the speed that all of the load needs, by count from 0 on. It is linear in ``1 / count`` between two
    counts, and continues by the ``1 / count`` law of the last count beyond the table.
    """
    table, end = tuple(felt), len(felt) - 1
    if (count > 0 and at_count(table, count) <= speed) or table[end] <= 0.0:
        return 1.0
    if count <= 0 or speed <= 0.0:
        return 0.0
    more = count
    while more < end and at_count(table, more) > speed:
        more += 1
    if (low := at_count(table, more)) > speed:
        return min(1.0, count * speed / (more * low))
    high = at_count(table, more - 1)
    part = (high - speed) / (high - low) if math.isfinite(high) and high > low else 1.0
    return min(1.0, count * ((1.0 - part) / (more - 1) + part / more))
