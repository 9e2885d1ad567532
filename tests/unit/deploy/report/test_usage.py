"""Requests, GPU-hours, energy and gaps, from plan records."""

from __future__ import annotations

import pytest

from bus_schemas import v1
from deploy.report.period_report import report
from deploy.report.tables import tables
from deploy.report.usage import Gap, Period, Prices, Usage, usages
from tests.unit.deploy.report.messages import HOUR, START, Journal, at

MINUTE = Period(START, at(60))


def chat(journal: Journal, period: Period = MINUTE, **gpus: int) -> Usage:
    records = [entry.message for entry in journal.entries if isinstance(entry.message, v1.PlanRecord)]
    (usage,) = usages(records, {("chat", pool): count for pool, count in gpus.items()}, period)
    return usage


def minute() -> Journal:
    journal = Journal()
    for second in range(10, 61, 10):
        journal.tick(second)
    return journal


def test_a_whole_minute_adds_up() -> None:
    usage = chat(minute(), decode=4)
    assert (usage.covered_s, usage.gaps) == (60, [])
    assert usage.requests == pytest.approx(600)
    assert usage.output_tokens == pytest.approx(30_000)
    assert usage.gpu_hours == pytest.approx((1 + 2 * 4) / 60)
    assert usage.joules == pytest.approx((500 + 8 * 300) * 60)
    assert usage.joules_per_token == pytest.approx(174_000 / 30_000)
    assert usage.in_time == pytest.approx({"prompts": 0.8, "answers": 0.9})
    assert usage.good_share == pytest.approx((0.7, 0.8))
    assert (usage.ttft_missed_s, usage.itl_missed_s) == (60, 0)
    assert usage.counts == {"prefill": (1, 1), "decode": (2, 2)}


def test_cost_needs_a_price_and_both_figures() -> None:
    usage = chat(minute())
    assert usage.cost(Prices()) is None
    assert usage.gpu_hours is not None
    assert usage.joules is not None
    assert usage.cost(Prices(kwh=0.36)) == pytest.approx(usage.joules / 1e7)
    assert usage.cost(Prices(gpu_hour=2.0)) == pytest.approx(2 * usage.gpu_hours)
    usage.joules = None
    assert usage.cost(Prices(kwh=1.0, gpu_hour=1.0)) is None


def test_what_no_record_speaks_for_is_a_gap_and_not_zero() -> None:
    journal = Journal()
    journal.tick(30)
    journal.tick(100)
    usage = chat(journal, Period(START, at(180)))
    assert usage.gaps == [Gap(START, at(20)), Gap(at(30), at(90)), Gap(at(100), at(180))]
    assert (usage.covered_s, usage.requests) == (20, 200)


def test_records_that_overlap_are_counted_once() -> None:
    journal = Journal()
    journal.tick(10)
    journal.tick(14)
    usage = chat(journal)
    assert usage.covered_s == 14
    assert usage.requests == pytest.approx(140)


def test_a_load_that_runs_faster_than_the_clock_counts_whole_in_the_loads_time() -> None:
    """Twenty times: ticks of 10 s of load every half a second; three seconds are a minute of load."""
    journal = Journal()
    for tick in range(1, 7):
        journal.tick(0.5 * tick, load_time_scale=20.0)
    usage, slow = chat(journal, Period(START, at(3)), decode=4), chat(minute(), decode=4)
    assert (usage.covered_s, usage.gaps) == (3, [])
    for figure in ("requests", "output_tokens", "gpu_hours", "joules", "joules_per_token", "in_time", "judged"):
        assert getattr(usage, figure) == pytest.approx(getattr(slow, figure)), figure
    assert (usage.ttft_missed_s, usage.itl_missed_s) == (3, 0)


def test_a_gap_of_a_load_that_runs_faster_than_the_clock_is_found() -> None:
    journal = Journal()
    journal.tick(0.5, load_time_scale=20.0)
    journal.tick(2.0, load_time_scale=20.0)
    usage = chat(journal, Period(START, at(2)))
    assert usage.gaps == [Gap(at(0.5), at(1.5))]
    assert (usage.covered_s, usage.requests) == (1.0, 200)


def test_the_report_names_a_load_that_runs_faster_than_the_clock() -> None:
    journal = Journal()
    journal.tick(0.5, load_time_scale=20.0)
    (table,) = [one for one in tables(report(journal.entries, MINUTE, Prices(), at(60))) if one.title == "Deployments"]
    assert any("20 times the clock" in note for note in table.notes)
    (table,) = [one for one in tables(report(minute().entries, MINUTE, Prices(), at(60))) if one.title == "Deployments"]
    assert not any("times the clock" in note for note in table.notes)


def test_an_unknown_draw_is_stated_and_a_frontend_has_no_gpu() -> None:
    journal = Journal()
    front = v1.PoolRecord(role="frontend", current=3, wanted=3, granted=3)
    pool = v1.PoolRecord(role="decode", current=2, wanted=2, granted=2)
    journal.tick(10, pools={"frontend": front, "decode": pool}, gpu_power={})
    usage = chat(journal)
    assert usage.joules is None
    assert usage.unmetered_gpu_s == 20
    assert usage.gpu_hours == pytest.approx(20 / 3600)


def test_a_missing_reading_is_not_zero() -> None:
    journal = Journal()
    journal.tick(10, observed={"interval_s": 10.0}, good={})
    usage = chat(journal)
    assert (usage.requests, usage.output_tokens, usage.good_share, usage.joules_per_token) == (None, None, None, None)


def test_figures_over_a_part_of_the_period_are_marked() -> None:
    shown = {table.title: table for table in tables(report(minute().entries, HOUR, Prices(), HOUR.until))}
    (row,) = shown["Deployments"].rows
    assert row[1] == "600*"
    assert "* over a part of the period only: see the gaps." in shown["Deployments"].notes
    assert shown["Gaps"].rows == [("chat", "2026-01-02 12:01:00", "2026-01-02 13:00:00", "3540 s")]
    whole = {table.title: table for table in tables(report(minute().entries, MINUTE, Prices(), MINUTE.until))}
    assert whole["Deployments"].rows[0][1] == "600"
    assert whole["Gaps"].rows == []
