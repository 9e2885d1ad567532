"""The controller of a promised share: it reaches the promise, and is moved by nothing that proves nothing."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.slo.share_controller import HIGHEST, LOWEST, SPENT_S, SloState, in_force, learn
from planner.domain.observation import DeploymentObservation
from planner.domain.plan import SloReport
from planner.domain.reading import NO_DATA, Reading, Sample
from tests.unit.planner.core.small_site import deployment, planner, traffic

PROMISED = deployment(slo_share=0.97)
CLOCK = planner(PROMISED).clock


def seen(requests: float, good: float, interval_s: float = 30.0) -> DeploymentObservation:
    return traffic(requests / interval_s, interval_s=interval_s, ttft_within=Sample(good), itl_within=Sample(1.0))


def after(known: SloState | None, what: DeploymentObservation | None, now_s: float) -> tuple[SloState, SloReport]:
    found = learn(PROMISED, known, what, CLOCK(now_s))
    assert found is not None
    return found


def test_without_a_promise_the_quantile_is_the_configured_one() -> None:
    fixed = deployment(ttft_quantile=0.8)
    assert learn(fixed, None, seen(1000, 0.5), CLOCK(30.0)) is None
    assert in_force(fixed, None) is fixed


def test_it_begins_with_the_configured_quantile() -> None:
    begun = learn(replace(PROMISED, ttft_quantile=0.8), None, None, CLOCK(0.0))
    assert begun is not None
    assert begun[0].quantile == 0.8
    assert in_force(PROMISED, begun[0]).ttft_quantile == 0.8
    assert in_force(PROMISED, begun[0]).forecast_level == 0.8


@pytest.mark.parametrize("missing", ["ttft_within", "itl_within", "requests", "all"])
def test_what_was_not_measured_moves_neither_quantile_nor_budget(missing: str) -> None:
    known, _ = after(None, seen(1000, 0.9), 30.0)
    lacking: dict[str, Reading] = {missing: NO_DATA}
    unseen = None if missing == "all" else replace(seen(1000, 0.5), **lacking)  # type: ignore[arg-type]
    held, report = after(known, unseen, 60.0)
    assert held == known
    assert report.good_share is None
    assert "held: no share of good requests was measured" in report.sentence


def test_both_targets_count() -> None:
    both = traffic(100.0, ttft_within=Sample(0.98), itl_within=Sample(0.9))
    known, report = after(None, both, 30.0)
    assert report.good_share == pytest.approx(0.98 * 0.9)
    assert known.quantile > 0.95
    assert "raised from 0.950" in report.sentence


def test_a_handful_of_requests_moves_next_to_nothing() -> None:
    known, _ = after(None, seen(3, 0.0), 30.0)
    assert 0.95 < known.quantile < 0.956
    many, _ = after(None, seen(3000, 0.0), 30.0)
    assert many.quantile > 0.97


def test_the_same_load_read_in_other_intervals_moves_it_as_far() -> None:
    found = []
    for interval_s in (5.0, 30.0):
        known, ticks = None, round(1800 / interval_s)
        for tick in range(ticks):
            known, _ = after(known, seen(20.0 * interval_s, 0.96, interval_s), (tick + 1) * interval_s)
        assert known is not None
        found.append(known.quantile)
    assert found[0] == pytest.approx(found[1], abs=2e-4)
    lacking = 1800 * 0.01 / (0.03 * SPENT_S) / 2  # of the day, in the mean of this time: that much less is allowed
    assert 1.0 - found[0] == pytest.approx(0.05 * math.exp(-(0.04 - 0.03 * (1 - lacking)) / 0.03), rel=0.02)


def test_it_does_not_wind_up_at_its_bounds() -> None:
    known = None
    for tick in range(400):
        known, report = after(known, seen(1000, 0.2), 30.0 * tick)
    assert known is not None
    assert known.quantile == HIGHEST
    assert "not raised: it is the highest that is used" in report.sentence
    known, _ = after(known, seen(1000, 1.0), 86_430.0)  # a new day, which owes nothing
    assert known.quantile < HIGHEST
    for tick in range(400):
        known, report = after(known, seen(1000, 1.0), 86_430.0 + 30.0 * tick)
    assert known.quantile == LOWEST
    assert "not lowered: it is the lowest that is used" in report.sentence


def test_counts_that_could_not_follow_hold_it_in_that_direction_only() -> None:
    known, _ = after(None, seen(1000, 0.97), 30.0)
    short = replace(known, stuck_up="prefill has its most replicas, 4")
    held, report = after(short, seen(1000, 0.5), 60.0)
    assert held.quantile == known.quantile
    assert held.budget.day.late > known.budget.day.late, "the budget is spent all the same"
    assert "not raised: prefill has its most replicas, 4" in report.sentence
    lower, _ = after(short, seen(1000, 1.0), 60.0)
    assert lower.quantile < known.quantile


@settings(max_examples=12, deadline=None)
@given(st.floats(0.9, 0.995), st.floats(0.5, 3.0), st.integers(0, 100))
def test_late_requests_come_to_the_allowed_ones_whatever_the_plant(share: float, sharp: float, seed: int) -> None:
    """A plant whose late share falls with the effort, under a load that doubles and halves."""
    promised = deployment(slo_share=share)
    dice, known = random.Random(seed), None
    requests = late = 0.0
    for tick in range(24 * 120):
        effort = -math.log(1.0 - (known.quantile if known else 0.95))
        now = dice.choice((500.0, 1000.0, 2000.0))
        bad = min(1.0, 1.5 * (1.0 - share) * math.exp(-sharp * (effort - 2.5)))
        found = learn(promised, known, seen(now, 1.0 - bad), CLOCK(30.0 * tick))
        assert found is not None
        known = found[0]
        assert LOWEST <= known.quantile <= HIGHEST
        requests, late = requests + now, late + bad * now
    assert 1.0 - late / requests == pytest.approx(share, abs=0.1 * (1.0 - share))


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(1.0, 1e5))
def test_worse_measured_shares_never_size_for_less(one: float, other: float, requests: float) -> None:
    worse, better = sorted((one, other))
    assert after(None, seen(requests, worse), 30.0)[0].quantile >= after(None, seen(requests, better), 30.0)[0].quantile


def settled_at(good: float, known: SloState | None, from_s: float, ticks: int) -> SloState:
    for tick in range(ticks):
        known, _ = after(known, seen(1000, good), from_s + 30.0 * tick)
    assert known is not None
    return known


def test_what_a_quiet_night_leaves_is_spent_in_the_day_before_the_quantile_rises() -> None:
    """Six hours without a late request, then 4 % late: above the promise, and within what the day has left."""
    quiet = settled_at(1.0, None, 0.0, 720)
    assert quiet.quantile == LOWEST
    busy = settled_at(0.96, quiet, 21_600.0, 240)
    assert busy.quantile == LOWEST
    assert busy.budget.day.left(0.97) > 0.0


def test_no_interval_is_allowed_more_than_one_and_a_half_times_the_late_requests() -> None:
    quiet = settled_at(1.0, None, 0.0, 2000)
    known, _ = after(quiet, seen(1000, 0.954), 60_030.0)
    assert known.quantile > LOWEST


def test_an_overspent_day_is_repaid_and_a_new_day_owes_nothing() -> None:
    spent = settled_at(0.9, None, 30.0, 240)
    same_day, _ = after(spent, seen(1000, 0.97), 7_260.0)
    assert same_day.quantile > spent.quantile or spent.quantile == HIGHEST
    lower = settled_at(0.99, spent, 7_260.0, 2)
    assert lower.quantile < spent.quantile
    new_day, report = after(replace(spent, quantile=0.9), seen(1000, 0.97), 86_430.0)
    assert new_day.quantile == pytest.approx(0.9)
    assert "as before" in report.sentence


@settings(max_examples=10, deadline=None)
@given(st.floats(0.6, 2.0), st.integers(0, 100))
def test_a_day_with_a_quiet_night_has_the_promised_share(sharp: float, seed: int) -> None:
    """A plant whose late share falls with the effort; at night nothing is late, whatever the effort."""
    dice, known, requests, late = random.Random(seed), None, 0.0, 0.0
    for tick in range(24 * 120):
        effort = -math.log(1.0 - (known.quantile if known else 0.95))
        night = tick < 8 * 120
        now = 500.0 if night else dice.choice((1500.0, 2000.0))
        bad = 0.0 if night else min(1.0, 0.045 * math.exp(-sharp * (effort - 2.0)))
        known, _ = after(known, seen(now, 1.0 - bad), 30.0 * (tick + 1))
        requests, late = requests + now, late + bad * now
    assert 1.0 - late / requests == pytest.approx(0.97, abs=0.003)
