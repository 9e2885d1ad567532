"""Mode ``load``: thresholds, grace period and queue trend of the load-based guide."""

from __future__ import annotations

import pytest

from planner.core.sizing import thresholds
from planner.core.sizing.thresholds import PoolHistory
from planner.domain.config import LoadThresholds
from planner.domain.pool import Role
from planner.domain.reasons import ReasonCode

RULES = LoadThresholds()


def last(role: Role, value: float, current: int, past: PoolHistory = PoolHistory()) -> tuple[int, ReasonCode]:  # noqa: B008
    link = thresholds.step(role, RULES, value, current, past)[-1]
    return link.value, link.reason


@pytest.mark.parametrize(("queued", "wanted"), [(0.0, 3), (0.79, 3), (0.8, 4), (2.0, 4), (2.01, 5)])
def test_prefill_steps_by_its_queue_per_replica(queued: float, wanted: int) -> None:
    assert last(Role.PREFILL, queued, 4)[0] == wanted


@pytest.mark.parametrize(("used", "wanted"), [(0.0, 3), (0.49, 3), (0.5, 4), (0.9, 4), (0.91, 5)])
@pytest.mark.parametrize("role", [Role.DECODE, Role.AGGREGATED])
def test_decode_steps_by_its_cache(role: Role, used: float, wanted: int) -> None:
    assert last(role, used, 4)[0] == wanted


@pytest.mark.parametrize(("intervals", "wanted"), [(1.0, 4), (3.0, 4), (3.5, 3)])
def test_no_scale_down_of_decode_within_three_intervals_of_growth(intervals: float, wanted: int) -> None:
    count, reason = last(Role.DECODE, 0.1, 4, PoolHistory(intervals_since_growth=intervals))
    assert count == wanted
    assert (reason is ReasonCode.GRACE_PERIOD) == (wanted == 4)


def test_growth_is_not_held_by_the_grace_period() -> None:
    assert last(Role.DECODE, 0.95, 4, PoolHistory(intervals_since_growth=1.0)) == (5, ReasonCode.LOAD)


@pytest.mark.parametrize(
    ("before", "now", "held"),
    [(20.0, 14.0, True), (12.0, 14.0, False), (14.0, 14.0, False), (16.0, 14.0, False), (None, 14.0, False)],
)
def test_no_scale_up_of_prefill_where_the_queue_clears_by_itself(before: float | None, now: float, held: bool) -> None:
    """20 to 14: three more such intervals leave nothing. 16 to 14: 8 still wait, above 0.5 for each of 4."""
    assert last(Role.PREFILL, now, 4, PoolHistory(before)) == (
        (4, ReasonCode.QUEUE_TREND) if held else (5, ReasonCode.LOAD)
    )


def test_prefill_leaves_zero_for_the_first_request() -> None:
    assert last(Role.PREFILL, 1.0, 0)[0] == 1
    assert last(Role.PREFILL, 0.0, 0)[0] == 0
