"""What is left of the late requests that a promised share allows, and how fast they are spent."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from planner.core.slo.error_budget import day_of, month_of, opened

SHARE = 0.97
NOON = datetime(2026, 5, 14, 12, tzinfo=UTC).timestamp()


def test_what_is_left_is_a_part_of_what_the_requests_so_far_allow() -> None:
    budget = opened(NOON)
    assert budget.day.left(SHARE) == 1.0
    budget = budget.judged(NOON + 30, 30, 1000, 0)
    assert budget.day.left(SHARE) == 1.0
    budget = budget.judged(NOON + 60, 30, 1000, 15)
    assert budget.day.left(SHARE) == pytest.approx(0.75)
    budget = budget.judged(NOON + 90, 30, 0, 0).judged(NOON + 120, 30, 1000, 120)
    assert budget.month.left(SHARE) == pytest.approx(1.0 - 135 / 90)


def test_each_day_and_month_has_its_own_account_that_begins_with_it() -> None:
    night = datetime(2026, 5, 31, 23, 59, 50, tzinfo=UTC).timestamp()
    before = opened(NOON).judged(night, 30, 1000, 60)
    assert before.month.requests == 1000
    assert before.day.since_s == night - 30
    after = before.judged(night + 30, 30, 500, 5)
    assert (after.day.requests, after.month.requests) == (500, 500)
    assert after.day.since_s == after.month.since_s == datetime(2026, 6, 1, tzinfo=UTC).timestamp()
    next_day = after.judged(night + 86_430, 30, 100, 1)
    assert (next_day.day.requests, next_day.month.requests) == (100, 600)


def test_periods_are_those_of_utc() -> None:
    assert datetime.fromtimestamp(day_of(NOON), UTC) == datetime(2026, 5, 14, tzinfo=UTC)
    assert datetime.fromtimestamp(month_of(NOON), UTC) == datetime(2026, 5, 1, tzinfo=UTC)


def test_the_burn_rate_is_one_where_the_budget_is_spent_exactly_and_forgets_with_an_hour() -> None:
    budget = opened(NOON)
    assert budget.burn_rate(SHARE) is None
    for tick in range(240):
        budget = budget.judged(NOON + 30 * tick, 30, 1000, 30)
    assert budget.burn_rate(SHARE) == pytest.approx(1.0)
    assert budget.req_per_s == pytest.approx(1000 / 30)
    for tick in range(120):
        budget = budget.judged(NOON + 7200 + 30 * tick, 30, 1000, 0)
    assert budget.burn_rate(SHARE) == pytest.approx(math.exp(-1) * (1 - math.exp(-2)) / (1 - math.exp(-3)))
