"""Budgets: schedules in their time zone, orders with ramps and ends, and what is known ahead."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from planner.core.power.effective_budget import (
    effective_mw,
    lead_s,
    level_mw,
    next_change_s,
    ramp_step_s,
    scheduled_mw,
    smallest_mw,
    with_commands,
)
from planner.domain.config import SiteConfig
from planner.domain.daily_window import BudgetSchedule, BudgetWindow
from planner.domain.ids import SiteId
from planner.domain.observation import BudgetCommand
from planner.domain.units import Milliwatts

CONFIG = SiteConfig(SiteId("s"), budget_mw=Milliwatts(1000))
BERLIN = ZoneInfo("Europe/Berlin")


def order(
    mw: int | None, from_s: float, until_s: float | None = None, ramp_s: float = 0.0, sequence: int = 1
) -> BudgetCommand:
    return BudgetCommand("s", None if mw is None else Milliwatts(mw), from_s, until_s, ramp_s, sequence)


def instants(first_s: float, last_s: float) -> st.SearchStrategy[float]:
    """Times as an order carries them: to a microsecond. Nearer ones are one instant after a lead is taken off."""
    return st.floats(first_s, last_s).map(lambda at_s: round(at_s, 6))


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-01-15T16:59:59", None),  # 17:59 in Berlin, winter
        ("2026-01-15T17:00:00", 500),
        ("2026-07-15T15:59:00", None),  # 17:59 in Berlin, summer
        ("2026-07-15T16:00:00", 500),
        ("2026-07-15T19:59:59", 500),
        ("2026-07-15T20:00:00", None),
    ],
)
def test_a_window_is_local_time_in_winter_and_summer(at: str, expected: int | None) -> None:
    schedule = BudgetSchedule((BudgetWindow(18 * 60, 22 * 60, Milliwatts(500)),), BERLIN)
    assert scheduled_mw(schedule, utc(at)) == expected


def test_a_window_over_midnight_belongs_to_the_day_it_starts_on() -> None:
    schedule = BudgetSchedule((BudgetWindow(22 * 60, 6 * 60, Milliwatts(700), weekdays=(4,)),))  # Friday night
    assert scheduled_mw(schedule, utc("2026-11-20T23:00:00")) == 700  # a Friday
    assert scheduled_mw(schedule, utc("2026-11-21T05:59:00")) == 700
    assert scheduled_mw(schedule, utc("2026-11-21T06:00:00")) is None
    assert scheduled_mw(schedule, utc("2026-11-21T23:00:00")) is None
    assert scheduled_mw(schedule, utc("2026-11-20T05:00:00")) is None


def test_later_windows_win_and_outside_of_all_the_configured_budget_holds() -> None:
    schedule = BudgetSchedule((BudgetWindow(0, 1440, Milliwatts(800)), BudgetWindow(60, 120, Milliwatts(300))))
    config = SiteConfig(SiteId("s"), Milliwatts(1000), schedule=schedule, utc_at_zero_s=utc("2026-11-21T00:00:00"))
    assert [level_mw(config, (), minute * 60.0) for minute in (0, 60, 119, 120)] == [800, 300, 300, 800]


def test_a_window_that_ends_at_midnight_ends_there() -> None:
    schedule = BudgetSchedule((BudgetWindow(23 * 60, 1440, Milliwatts(300)),))
    config = SiteConfig(SiteId("s"), Milliwatts(1000), schedule=schedule, utc_at_zero_s=utc("2026-11-21T00:00:00"))
    assert [level_mw(config, (), minute * 60.0) for minute in (0, 1379, 1380, 1439, 1440)] == [
        1000,
        1000,
        300,
        300,
        1000,
    ]


def test_a_scheduled_cut_is_kept_before_it_comes() -> None:
    schedule = BudgetSchedule((BudgetWindow(60, 120, Milliwatts(300)),))
    config = SiteConfig(SiteId("s"), Milliwatts(1000), schedule=schedule, utc_at_zero_s=utc("2026-11-21T00:00:00"))
    ahead_s = lead_s(config)
    assert effective_mw(config, (), 3600.0 - ahead_s - 0.1) == 1000
    assert effective_mw(config, (), 3600.0 - ahead_s + 0.1) == 300
    assert effective_mw(config, (), 7200.0 - 0.1) == 300, "a raise is never taken ahead"
    assert effective_mw(config, (), 7200.0) == 1000


def test_a_ramp_starts_where_the_budget_stood() -> None:
    ramp = order(600, from_s=100.0, ramp_s=40.0)
    assert [level_mw(CONFIG, (ramp,), t) for t in (99.0, 100.0, 110.0, 120.0, 140.0, 500.0)] == [
        1000,
        1000,
        900,
        800,
        600,
        600,
    ]


def test_an_order_lapses_to_what_stands_below_it() -> None:
    first, second = order(700, 0.0), order(500, 10.0, until_s=20.0, sequence=2)
    assert [level_mw(CONFIG, (first, second), t) for t in (5.0, 10.0, 19.9, 20.0)] == [700, 500, 500, 700]


def test_a_release_gives_back_what_is_configured_and_scheduled() -> None:
    schedule = BudgetSchedule((BudgetWindow(60, 120, Milliwatts(300)),))
    config = SiteConfig(SiteId("s"), Milliwatts(1000), schedule=schedule, utc_at_zero_s=utc("2026-11-21T00:00:00"))
    cut, release = order(200, 0.0), order(None, 3000.0, sequence=2)
    known = with_commands((), (cut, release), "s", 0.0)
    assert [level_mw(config, known, t) for t in (10.0, 2999.0, 3000.0, 3599.0, 3600.0, 7200.0)] == [
        200,
        200,
        1000,
        1000,
        300,
        1000,
    ]
    assert smallest_mw(config, known, 0.0) == 200
    over = with_commands(known, (), "s", 3001.0)
    assert over == (release,), "a released command cannot come back"
    assert smallest_mw(config, over, 3001.0) == 300


def test_a_release_by_a_ramp_ends_at_what_is_configured() -> None:
    known = (order(200, 0.0), order(None, 100.0, ramp_s=40.0, sequence=2))
    assert [level_mw(CONFIG, known, t) for t in (99.0, 100.0, 120.0, 140.0)] == [200, 200, 600, 1000]


def test_an_order_of_the_past_holds_at_once_and_its_ramp_has_begun() -> None:
    late = order(600, from_s=-30.0, ramp_s=60.0)
    assert level_mw(CONFIG, (late,), 0.0) == 800


def test_the_newest_order_wins_whatever_order_they_arrive_in() -> None:
    older, newer = order(400, 0.0, sequence=3), order(800, 0.0, sequence=7)
    known = with_commands((), (newer, older), "s", 1.0)
    assert level_mw(CONFIG, known, 1.0) == 800
    assert with_commands(known, (older,), "s", 2.0) == known, "a command received again changes nothing"


def test_orders_of_other_sites_are_not_ours() -> None:
    assert with_commands((), (BudgetCommand("t", Milliwatts(1), 0.0, sequence=1),), "s", 0.0) == ()


def test_a_lapsed_order_stays_known_while_a_ramp_that_began_on_it_runs() -> None:
    short, ramp = order(500, 0.0, until_s=15.0), order(900, 10.0, ramp_s=40.0, sequence=2)
    known = with_commands((), (short, ramp), "s", 5.0)
    before = level_mw(CONFIG, known, 20.0)
    known = with_commands(known, (), "s", 20.0)
    assert level_mw(CONFIG, known, 20.0) == before == 600
    assert len(with_commands(known, (), "s", 60.0)) == 1, "and goes with its end"


def test_the_smallest_known_budget_counts_orders_to_come() -> None:
    ahead = order(300, from_s=1e6)
    assert smallest_mw(CONFIG, (ahead,), 0.0) == 300
    assert smallest_mw(CONFIG, (order(300, 0.0, until_s=5.0),), 10.0) == 1000, "not those that are over"


def test_the_next_change_is_announced_before_a_cut() -> None:
    ahead = order(300, from_s=100.0)
    assert next_change_s(CONFIG, (ahead,), 0.0) == 100.0 - lead_s(CONFIG)
    assert next_change_s(CONFIG, (ahead,), 100.0) is None
    assert next_change_s(CONFIG, (), 0.0) is None


@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(0, 2000),
            st.floats(0, 100),
            st.none() | st.floats(0, 200),
            st.sampled_from([0.0, 7.0, 30.0]),
        ),
        max_size=6,
    ),
    st.lists(st.floats(0, 200), min_size=1, max_size=8),
)
def test_forgetting_old_orders_never_changes_the_budget(
    rows: list[tuple[int | None, float, float | None, float]], times: list[float]
) -> None:
    orders = tuple(order(mw, a, b, r, n) for n, (mw, a, b, r) in enumerate(rows))
    known: tuple[BudgetCommand, ...] = with_commands((), orders, "s", 0.0)
    for now_s in sorted(times):
        known = with_commands(known, (), "s", now_s)
        assert level_mw(CONFIG, known, now_s) == level_mw(CONFIG, orders, now_s)
        ahead = effective_mw(CONFIG, known, now_s)
        assert ahead <= level_mw(CONFIG, orders, now_s)
        step = lead_s(CONFIG) / 64
        assert ahead <= min(level_mw(CONFIG, orders, now_s + n * step) for n in range(65)) + 1


@given(
    budget=st.integers(1, 3000),
    from_s=instants(-50.0, 200.0),
    ramp_s=st.floats(0.5, 500.0),
    later=st.none() | st.tuples(st.integers(1, 3000), instants(0.0, 300.0), st.floats(0.0, 100.0)),
)
@example(budget=1, from_s=-3.245623246302464e-14, ramp_s=1.0, later=(1000, 0.0, 0.0))
def test_a_ramp_is_kept_at_every_instant_and_followed_in_steps(
    budget: int, from_s: float, ramp_s: float, later: tuple[int, float, float] | None
) -> None:
    orders = [order(budget, from_s, ramp_s=ramp_s)]
    if later is not None:
        orders.append(order(later[0], later[1], ramp_s=later[2], sequence=2))
    known = tuple(orders)
    now_s, levels = from_s - 20.0, []
    while now_s < 800.0:
        level = effective_mw(CONFIG, known, now_s)
        until_s = next_change_s(CONFIG, known, now_s)
        end_s = 800.0 if until_s is None else until_s
        assert end_s > now_s
        for part in range(5):
            at_s = now_s + (end_s - now_s) * part / 5.0
            if at_s >= end_s:
                break  # Two changes so close that no number lies between them.
            assert effective_mw(CONFIG, known, at_s) == level, "constant until the announced change"
            for ahead in range(4):
                assert level <= level_mw(CONFIG, known, at_s + lead_s(CONFIG) * ahead / 3.0)
        levels.append(level)
        now_s = end_s
    steps = [known[n].ramp_s / ramp_step_s(CONFIG, known, n) if known[n].ramp_s else 0.0 for n in range(len(known))]
    assert len(levels) <= sum(steps) + 9 * len(known), "a step or an edge of an order, nothing between"


def test_a_step_is_never_finer_than_what_matters() -> None:
    slow = order(900_000, 0.0, ramp_s=86_400.0)
    config = SiteConfig(SiteId("s"), budget_mw=Milliwatts(1_000_000), smallest_step_mw=Milliwatts(5_000))
    assert ramp_step_s(config, (slow,), 0) == pytest.approx(86_400.0 / 20)
    assert ramp_step_s(config, (order(1_000, 0.0, ramp_s=60.0),), 0) == config.lease_s / 3.0
