"""Holds a promised share of good requests: an integral controller that moves the quantile which sizing uses.

The state is the **effort** ``-ln(1 - quantile)``: one more unit of it sizes for a chance of being late that is e times
smaller, which has a similar effect at every level. Each interval adds its late requests less the allowed ones, over the
number allowed in ``BUDGET_S``. So over a long time the late requests equal the allowed ones, whatever the load, unless
something stops the integral: the bounds of the effort, or counts that could not have followed it (anti-windup).

Then the day's account is not even: a quiet night leaves late requests unused, and a rise of the load spends more than
its share before the effort has followed. What the day has left is spent, and what it lacks saved, over ``SPENT_S``: an
interval is allowed more or fewer late requests, within ``MOST_MOVED``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from planner.core.slo.error_budget import ErrorBudget, opened
from planner.domain.config import DeploymentConfig
from planner.domain.observation import DeploymentObservation
from planner.domain.plan import BudgetLeft, SloReport
from planner.domain.reading import value_or_none
from planner.domain.units import TickClock

BUDGET_S = 1800.0
"""Late requests as many as are allowed in this time move the effort by 1. Several times as long as a start-up and the
scale-down window after it, which is the delay before a moved quantile shows in what is observed."""
SPENT_S = 10_800.0
"""A balance of the day is evened out over this time. Six times ``BUDGET_S``: an integral of an integral swings where it
is not several times slower (its damping is half the root of this ratio, times that of how sharply effort acts)."""
MOST_MOVED = 0.5
"""At most this share of an interval's allowed late requests is added or taken away for the day's balance. So no hour is
sized for more than one and a half times the late requests that the promise allows."""
FEWEST_LATE = 30.0
"""At least this many late requests are taken to move the effort by 1: a handful of requests proves nothing, and the
number of late ones among those that allow 30 scatters by 18 % by chance."""
LOWEST, HIGHEST = 0.5, 0.995
"""Bounds of the quantile. Below the median the load itself is no longer covered; beyond the highest, a quantile of so
few errors is only their maximum."""
SHOWN = 5e-4
"""A quantile that moved by less is shown as unchanged."""


@dataclass(frozen=True, slots=True)
class SloState:
    """What the controller remembers. ``stuck_up`` and ``stuck_down``: why the counts of the last tick could not have
    been more, or fewer, whatever the quantile; empty: they could."""

    quantile: float
    budget: ErrorBudget
    stuck_up: str = ""
    stuck_down: str = ""


def learn(
    config: DeploymentConfig, known: SloState | None, seen: DeploymentObservation | None, clock: TickClock
) -> tuple[SloState, SloReport] | None:
    """The state after an interval, and its report; None where no share is promised.

    Without a measured share nothing changes: neither the quantile nor the budget.
    """
    if (share := config.slo_share) is None:
        return None
    before = known or SloState(_bounded(config.ttft_quantile), opened(clock.utc_s))
    good, requests = good_share(seen), None if seen is None else value_or_none(seen.requests)
    if seen is None or good is None or not requests or requests <= 0.0:
        return before, _report(share, before, before, None, 0.0, "held: no share of good requests was measured")
    late = (1.0 - good) * requests
    budget = before.budget.judged(clock.utc_s, seen.interval_s, requests, late)
    moved = (late - _allowed(share, budget) * requests) / max(FEWEST_LATE, (1.0 - share) * BUDGET_S * budget.req_per_s)
    stuck = before.stuck_up if moved > 0.0 else before.stuck_down
    effort = _effort(before.quantile) + (0.0 if stuck else moved)
    after = replace(before, quantile=_bounded(1.0 - math.exp(-effort)), budget=budget)
    return after, _report(share, before, after, good, requests, _held(before, moved, stuck))


def _allowed(share: float, budget: ErrorBudget) -> float:
    """The share of an interval's requests that may be late, by the promise and by what this day has left of it."""
    balance = budget.day.allowed(share) - budget.day.late
    part = balance / max(FEWEST_LATE, (1.0 - share) * SPENT_S * budget.req_per_s)
    return (1.0 - share) * (1.0 + min(MOST_MOVED, max(-MOST_MOVED, part)))


def good_share(seen: DeploymentObservation | None) -> float | None:
    """The share of requests in time by both phases, taken as independent; None where one of them is not measured."""
    prompts = value_or_none(seen.ttft_within) if seen is not None else None
    answers = value_or_none(seen.itl_within) if seen is not None else None
    return None if prompts is None or answers is None else prompts * answers


def in_force(config: DeploymentConfig, state: SloState | None) -> DeploymentConfig:
    """The configuration with the controller's quantile, where a share is promised."""
    return config if config.slo_share is None or state is None else replace(config, ttft_quantile=state.quantile)


def _effort(quantile: float) -> float:
    return -math.log(1.0 - quantile)


def _bounded(quantile: float) -> float:
    return min(HIGHEST, max(LOWEST, quantile))


def _held(before: SloState, moved: float, stuck: str) -> str:
    """Why the quantile stays although requests were judged; empty where it moves."""
    if stuck:
        return f"not {'raised' if moved > 0.0 else 'lowered'}: {stuck}"
    if moved > 0.0 and before.quantile >= HIGHEST:
        return "not raised: it is the highest that is used"
    if moved < 0.0 and before.quantile <= LOWEST:
        return "not lowered: it is the lowest that is used"
    return ""


def _report(
    share: float, before: SloState, after: SloState, good: float | None, requests: float, held: str
) -> SloReport:
    budget = after.budget
    return SloReport(
        slo_share=share,
        quantile=after.quantile,
        good_share=good,
        requests=requests,
        burn_rate=budget.burn_rate(share),
        day=BudgetLeft(budget.day.since_s, budget.day.requests, budget.day.late, budget.day.left(share)),
        month=BudgetLeft(budget.month.since_s, budget.month.requests, budget.month.late, budget.month.left(share)),
        sentence=f"{_cause(share, good, requests)}: {_move(before, after, held)}",
    )


def _cause(share: float, good: float | None, requests: float) -> str:
    promised = f"{share:.4g} of the requests are promised good"
    return promised if good is None else f"{promised}, {good:.4f} of {requests:.0f} were in the last interval"


def _move(before: SloState, after: SloState, held: str) -> str:
    now = f"sized for the {after.quantile:.3f} quantile"
    if held:
        return f"{now} ({held})"
    if abs(after.quantile - before.quantile) < SHOWN:
        return f"{now} (as before)"
    return f"{now} ({'raised' if after.quantile > before.quantile else 'lowered'} from {before.quantile:.3f})"
