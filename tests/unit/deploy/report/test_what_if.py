"""What an advisory planner would have done, from records by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bus_schemas import v1
from deploy.report.period_report import PeriodReport, as_json, report
from deploy.report.usage import Prices
from deploy.report.written import FORMS
from tests.unit.deploy.report.messages import HOUR, Journal, at

ADVICE = (v1.Reason(code="advisory", text="advisory: shown, not published"),)


def pools(current: int, granted: int, chain: tuple[v1.Reason, ...] = ADVICE) -> dict[str, v1.PoolRecord]:
    decode = v1.PoolRecord(role="decode", current=current, wanted=granted, granted=granted, chain=chain)
    front = v1.PoolRecord(role="frontend", current=3, wanted=1, granted=1, chain=chain)
    return {"decode": decode, "front": front}


def made(journal: Journal, **prices: float) -> PeriodReport:
    return report(journal.entries, HOUR, Prices(**prices), HOUR.until, what_if=True)


def hour(journal: Journal, **fields: Any) -> None:
    """A record every ten minutes: four workers ran at 300 W each, and two would have drawn 1,000 W together."""
    power = {"decode": v1.PoolPowerRecord(assumed_p_u_watts=600, p_u_watts=600, drawn_watts=300)}
    plan = {"pools": pools(4, 2), "gpu_power": power, "expected": {"watts": 1000.0}, **fields}
    for minute in range(10, 61, 10):
        journal.tick(60 * minute, interval_s=600.0, **plan)


def test_hours_joules_and_cost_are_those_of_the_plan_against_what_ran() -> None:
    journal = Journal()
    hour(journal)
    (found,) = made(journal, kwh=0.5, gpu_hour=2.0).what_if or ()
    assert (found.ran_gpu_hours, found.planned_gpu_hours, found.saved_gpu_hours) == pytest.approx((4.0, 2.0, 2.0))
    joules = (found.ran_joules, found.planned_joules, found.saved_joules)
    assert joules == pytest.approx((1200 * 3600, 1000 * 3600, 200 * 3600))
    assert found.saved_cost(Prices(kwh=0.5, gpu_hour=2.0)) == pytest.approx(0.1 + 4.0)
    assert found.saved_cost(Prices()) is None
    assert (found.covered_s, found.other_s, found.gaps) == (3600.0, 3600.0, [])
    assert found.assumed_one_gpu == ("decode",)


def test_the_size_of_a_replica_is_that_of_another_planners_decision() -> None:
    journal = Journal()
    decision = v1.ScalingDecision(
        time=at(-60),
        deployment="chat",
        decision_id=1,
        incarnation="one",
        epoch=1,
        pools={"decode": v1.PoolTarget(role="decode", replicas=4, gpus_per_replica=8)},
    )
    journal.add("DECISIONS", -60, decision)
    hour(journal)
    (found,) = made(journal).what_if or ()
    assert (found.ran_gpu_hours, found.planned_gpu_hours) == pytest.approx((32.0, 16.0))
    assert found.assumed_one_gpu == ()


def test_a_gap_and_an_unknown_draw_are_stated_and_not_filled() -> None:
    journal = Journal()
    hour(journal, expected={})
    journal.entries = [entry for entry in journal.entries if entry.stored_at > at(1800)]
    whole = made(journal, kwh=0.5)
    (found,) = whole.what_if or ()
    assert (found.covered_s, found.metered_s, found.saved_joules) == (1800.0, 0.0, None)
    assert [(gap.start, gap.end) for gap in found.gaps] == [(HOUR.since, at(1800))]
    text = FORMS["md"](whole)
    assert "- chat: figures are of 0.50 of 1.00 h*." in text
    assert "- chat: nothing is recorded from 2026-01-02 12:00:00 to 2026-01-02 12:30:00." in text
    assert "- chat: joules and cost are of 0.00 h, in which both draws are known." in text
    assert "- chat: one GPU a replica is assumed of decode: no decision names it." in text
    assert "| chat | 100.00 % | decode=2-2 front=1-1 | 2.00* | 1.00* | 1.00* | - | - | - | - |" in text


def test_a_planner_that_acts_gave_no_advice() -> None:
    journal = Journal()
    hour(journal, pools=pools(4, 2, chain=()))
    assert made(journal).what_if == []
    assert "no record of a deployment with `mode: advisory` in this period" in FORMS["md"](made(journal))
    assert as_json(made(journal))["what_if"] == []
    plain = report(journal.entries, HOUR, Prices(), HOUR.until)
    assert json.loads(FORMS["json"](plain))["what_if"] is None
    assert "What if" not in FORMS["md"](plain)
