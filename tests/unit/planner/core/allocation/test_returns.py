"""A replica that is not wanted is kept while its absence would lose more than it costs to wait for its load."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.allocation import returns
from planner.core.allocation.returns import GONE, LoadGap, worth_keeping
from planner.core.intake import initial_state
from planner.core.limits import hpa_behavior
from planner.core.sizing.options import PoolOptions, exactly
from planner.core.state import PoolState
from planner.core.step import step
from planner.domain.config import PoolConfig, ScalingRules
from planner.domain.observation import Observation
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode
from tests.unit.planner.core.small_site import DECODE, PREFILL, D, deployment, planner, pool, traffic

START_S, INTERVAL_S = 60.0, 30.0
POOL = pool(PREFILL, scale_down=ScalingRules(), startup_s=START_S)
OPTIONS = exactly((Limited(4, ReasonCode.SLA, ""),))
gaps = st.lists(st.builds(LoadGap, st.one_of(st.none(), st.floats(0.0, 1200.0)), st.floats(0.0, 8.0)), max_size=12)
quantiles = st.floats(0.01, 0.99)
ages = st.floats(0.0, 1300.0)


def kept_for_s(known: tuple[LoadGap, ...], quantile: float) -> float:
    """How long a replica is kept after it was last wanted, in seconds, at a tick every second."""
    return next(float(s) for s in range(1, 2000) if worth_keeping(POOL, known, float(s), quantile) is None)


def test_until_gaps_are_known_a_replica_is_kept_as_long_as_hpa_keeps_one() -> None:
    assert kept_for_s((), 0.95) == POOL.down_window_s


def test_the_lower_the_quantile_the_sooner_it_is_given_up() -> None:
    found = [kept_for_s((), quantile) for quantile in (0.5, 0.85, 0.95)]
    assert found == sorted(found)
    assert found[0] < START_S


def test_a_load_that_always_comes_back_keeps_its_replicas_for_longer_than_any_default_window() -> None:
    known = (LoadGap(600.0, 2.0),) * 4
    assert kept_for_s(known, 0.95) == 600.0


def test_a_load_that_never_comes_back_gives_them_up_sooner_each_time() -> None:
    found = [kept_for_s((GONE,) * seen, 0.95) for seen in (0, 4, 8, 30)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < INTERVAL_S


def test_a_return_that_loses_nothing_is_waited_for_only_as_long_as_a_start_takes() -> None:
    nothing, much = (LoadGap(400.0, 0.0),) * 20, (LoadGap(400.0, 1.0),) * 20
    assert kept_for_s(nothing, 0.95) <= POOL.down_window_s
    assert kept_for_s(much, 0.95) == 400.0


@given(gaps, ages, quantiles, quantiles)
def test_more_is_kept_for_a_higher_quantile(known: list[LoadGap], gone_s: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert worth_keeping(POOL, known, gone_s, low) is None or worth_keeping(POOL, known, gone_s, high) is not None


@given(gaps, ages, quantiles, st.floats(1.0, 3.0))
def test_more_is_kept_where_more_is_lost_and_less_where_more_loads_went(
    known: list[LoadGap], gone_s: float, quantile: float, more: float
) -> None:
    kept = worth_keeping(POOL, known, gone_s, quantile) is not None
    dearer = [replace(gap, lost=gap.lost * more) for gap in known]
    assert not kept or worth_keeping(POOL, dearer, gone_s, quantile) is not None
    assert kept or worth_keeping(POOL, [*known, GONE], gone_s, quantile) is None


@given(gaps, st.integers(1, 30), st.integers(1, 30), st.lists(st.integers(0, 30), min_size=1, max_size=40), quantiles)
def test_what_is_kept_lies_between_what_is_wanted_and_what_runs(
    known: list[LoadGap], wanted: int, more: int, course: list[int], quantile: float
) -> None:
    past = tuple((INTERVAL_S * tick, count) for tick, count in enumerate(course))
    found = hpa_behavior.keep(
        POOL, wanted + more, wanted, PoolState(past, past, gaps=tuple(known)), INTERVAL_S * len(course), quantile
    )
    assert found is None or wanted < found.value <= min(wanted + more, max(course))


def recommended(course: list[int], one: PoolConfig = POOL, options: PoolOptions = OPTIONS) -> tuple[LoadGap, ...]:
    """The gaps of a course of recommendations, one a tick, with as much of it remembered as a planner keeps."""
    past: tuple[tuple[float, int], ...] = ()
    known: tuple[LoadGap, ...] = ()
    for tick, count in enumerate(course):
        t_s = INTERVAL_S * tick
        known = returns.learned(one, known, past, t_s, count, options)
        past = (*hpa_behavior.trimmed(past, t_s - hpa_behavior.horizon_s(one)), (t_s, count))
    return known


def test_a_gap_lasts_from_when_a_count_was_last_wanted_to_when_it_is_again() -> None:
    assert [gap.seconds for gap in recommended([3, 1, 1, 1, 3])] == [120.0, 120.0]
    assert [gap.seconds for gap in recommended([4, 3, 2, 1, 4])] == [60.0, 90.0, 120.0]
    assert [gap.seconds for gap in recommended([1, 2, 3, 3])] == []


def test_a_load_that_stays_away_for_twenty_start_ups_is_gone_once() -> None:
    ticks = round(returns.LONGEST_STARTS * START_S / INTERVAL_S)
    assert recommended([2, *[1] * ticks]) == (GONE,)
    assert recommended([2, *[1] * 3 * ticks, 2]) == (GONE,)
    assert recommended([3, 2, *[1] * 3 * ticks]) == (GONE, GONE)
    assert recommended([9, *[1] * ticks]) == (GONE,) * returns.AT_ONCE


def lasting(course: list[int], tick_s: float, one: PoolConfig = POOL) -> tuple[tuple[float, int], ...]:
    past = tuple((tick_s * tick, count) for tick, count in enumerate(course, 1))
    return tuple(returns.lasting(one, past[: tick + 1]) for tick in range(len(past)))


def test_at_ticks_of_half_a_start_up_time_what_is_recommended_was_wanted() -> None:
    assert lasting([2, 1, 3], 30.0) == ((30.0, 2), (60.0, 1), (90.0, 3))
    assert lasting([2, 1, 3], 90.0) == ((90.0, 2), (180.0, 1), (270.0, 3))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.sampled_from([1, 2, 3, 6]))
def test_what_lasts_half_a_start_up_time_was_wanted_as_long_at_every_tick(course: list[int], parts: int) -> None:
    often = lasting([count for count in course for _ in range(parts)], 30.0 / parts)[parts - 1 :: parts]
    assert [count for _, count in often] == course
    assert [at for at, _ in often] == [30.0 * tick - 15.0 * (parts - 1) / parts for tick in range(1, len(course) + 1)]


def test_a_wish_of_five_seconds_keeps_nothing_where_half_a_minute_keeps_a_replica() -> None:
    """Each such wish kept it for five start-up times, and ticks of half a minute see one in six of them."""
    brief, long = [1] * 12 + [2] + [1] * 6, [1] * 12 + [2] * 6 + [1] * 6
    kept = [
        hpa_behavior.keep(POOL, 2, 1, PoolState(lasting=lasting(course, 5.0)), 5.0 * (len(course) + 1), 0.95)
        for course in (brief, long)
    ]
    assert kept[0] is None
    assert kept[1] is not None
    assert kept[1].value == 2


def test_a_return_loses_more_the_more_replicas_are_missing() -> None:
    speed = (float("inf"), 4.0, 2.0, 1.33, 1.0, 0.8)
    options = PoolOptions(speed, (0.0,) + (1.0,) * 5, 4)
    (slight,), (deep, *_) = recommended([4, 3, 4], options=options), recommended([4, 1, 4], options=options)
    assert 0.0 < slight.lost < deep.lost <= 4.0 / 3.0


@pytest.mark.parametrize("rules", [ScalingRules(stabilization_window_s=0.0), ScalingRules(stabilization_window_s=60.0)])
def test_a_pool_with_a_window_learns_no_gaps(rules: ScalingRules) -> None:
    assert recommended([3, 1, 3], replace(POOL, scale_down=rules)) == ()


def test_a_load_that_returns_after_seven_minutes_finds_its_replicas_once_it_has_returned_before() -> None:
    one = deployment({name: pool(name, scale_down=ScalingRules(), startup_s=START_S) for name in (PREFILL, DECODE)})
    config = planner(one)
    state = initial_state(config, 1, 0.0, (), ())
    found, half = [], 14
    for tick in range(1, 6 * half + 1):
        heavy = tick // half % 2 == 1
        mix = traffic(60.0 if heavy else 4.0, 6000.0, 50.0)
        state, plan = step(state, Observation({D: mix}), config, config.clock(INTERVAL_S * tick))
        if heavy and tick % half == 0:
            found.append(plan.deployments[D].pools[PREFILL].current)
    assert half * INTERVAL_S > POOL.down_window_s, "by the window alone they would have gone"
    assert found[0] == found[1] == 2
    assert found[2] >= 16
