"""Figures by class of service are the sums of what their deployments did."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas import v1
from deploy.report.class_usage import ClassUsage, class_usages
from deploy.report.evidence import claimed, recomputed
from deploy.report.period_report import PeriodReport, as_json, report
from deploy.report.usage import Period, Prices, Usage, usages
from deploy.report.written import as_csv, markdown, page, text_json
from tests.unit.deploy.report.messages import HOUR, START, Journal, at

MINUTE = Period(START, at(60))
PRICES = Prices(kwh=0.2, gpu_hour=2.0)


def two_classes() -> Journal:
    """A minute of three deployments: two interactive ones, of which one misses more, and one without a class."""
    journal = Journal()
    slow = {"prompts": v1.GoodShareRecord(measured=0.5), "answers": v1.GoodShareRecord(measured=0.6)}
    for second in range(10, 61, 10):
        journal.tick(second, deployment="agents", service_class="interactive", good=slow)
        journal.tick(second, deployment="chat", service_class="interactive")
        journal.tick(second, deployment="night")
    return journal


def made(journal: Journal) -> PeriodReport:
    return report(journal.entries, MINUTE, PRICES, HOUR.until)


def records(journal: Journal) -> list[v1.PlanRecord]:
    return [entry.message for entry in journal.entries if isinstance(entry.message, v1.PlanRecord)]


def test_a_class_adds_up_its_deployments() -> None:
    interactive, rest = class_usages(records(two_classes()), {}, MINUTE)
    assert (interactive.service_class, interactive.deployments) == ("interactive", ("agents", "chat"))
    assert (rest.service_class, rest.deployments) == (None, ("night",))
    assert (interactive.requests, rest.requests) == pytest.approx((1200, 600))
    assert interactive.in_time == pytest.approx({"prompts": 0.65, "answers": 0.75})
    assert interactive.good_share == pytest.approx(((0.1 + 0.7) / 2, (0.5 + 0.8) / 2))
    assert interactive.gpu_hours == pytest.approx(2 * 3 / 60)
    assert interactive.joules_per_token == pytest.approx(2 * (500 + 2 * 300) * 60 / 60_000)


def test_without_a_class_there_is_no_table_of_classes() -> None:
    journal = Journal()
    journal.tick(10)
    assert class_usages(records(journal), {}, MINUTE) == []
    assert "Classes of service" not in markdown(made(journal))
    assert as_json(made(journal))["classes"] == []


def test_a_deployment_whose_class_changed_counts_for_both_once() -> None:
    journal = Journal()
    for second in range(10, 61, 10):
        journal.tick(second, service_class="batch" if second <= 20 else "interactive")
    batch, interactive = class_usages(records(journal), {}, MINUTE)
    assert (batch.covered_s, interactive.covered_s) == (20, 40)
    assert (batch.requests, interactive.requests) == pytest.approx((200, 400))


CLASSES = st.sampled_from([None, "batch", "interactive"])
TICK = st.tuples(st.sampled_from(["a", "b", "c"]), CLASSES, st.floats(0, 1e3), st.floats(0, 1), st.booleans())
SUMMED = ("covered_s", "requests", "output_tokens", "ttft_missed_s", "gpu_hours", "joules", "unmetered_gpu_s")


def total(parts: list[Usage] | list[ClassUsage], figure: str) -> float:
    return sum(getattr(part, figure) or 0.0 for part in parts)


@settings(max_examples=50, deadline=None)
@given(st.lists(TICK, min_size=1, max_size=20))
def test_classes_add_up_to_the_deployments(ticks: list[tuple[str, str | None, float, float, bool]]) -> None:
    journal = Journal()
    for index, (name, service_class, requests, share, metered) in enumerate(ticks):
        seen = {"interval_s": 10.0, "requests": requests, "osl_tokens": 50.0, "ttft_ms": 600.0}
        fields: dict[str, Any] = {} if metered else {"gpu_power": {}}
        good = {"prompts": v1.GoodShareRecord(measured=share)}
        journal.tick(7.0 * index, deployment=name, service_class=service_class, observed=seen, good=good, **fields)
    of_all = usages(records(journal), {}, HOUR)
    by_class = class_usages(records(journal), {}, HOUR)
    if not by_class:
        assert {called for _, called, *_ in ticks} == {None}
        return
    for figure in SUMMED:
        assert total(by_class, figure) == pytest.approx(total(of_all, figure))
    good_requests = [one.judged.get("prompts", 0.0) * one.in_time.get("prompts", 0.0) for one in by_class]
    assert sum(good_requests) == pytest.approx(
        sum(one.judged.get("prompts", 0.0) * one.in_time.get("prompts", 0.0) for one in of_all)
    )


def test_every_form_has_the_classes_and_the_check_computes_them_again() -> None:
    journal = two_classes()
    one = made(journal)
    for text in (page(one), markdown(one), as_csv(one)):
        assert "Classes of service" in text
        assert "interactive" in text
    value = json.loads(text_json(one))
    row = value["classes"][0]
    assert (row["service_class"], row["deployments"]) == ("interactive", ["agents", "chat"])
    assert row["cost"] == pytest.approx(sum(each["cost"] for each in value["deployments"][:2]))
    again = report(journal.entries, MINUTE, PRICES, HOUR.until + timedelta(hours=1))
    assert (True, "classes: as the messages give them") in recomputed(claimed(text_json(one)), again)
    row["joules"] *= 0.5
    wrong = recomputed(claimed(json.dumps(value)), again)
    assert [text for agrees, text in wrong if not agrees] == [
        "classes: its figures are not those that the messages give"
    ]


def test_a_report_of_an_earlier_version_is_checked_for_what_it_has() -> None:
    journal = two_classes()
    value = json.loads(text_json(made(journal)))
    del value["classes"]
    for row in value["deployments"]:
        del row["service_class"], row["judged"], row["load_time_scale"]
    assert all(agrees for agrees, _ in recomputed(claimed(json.dumps(value)), made(journal)))
    del value["deployments"][0]["gpu_hours"]
    assert not all(agrees for agrees, _ in recomputed(claimed(json.dumps(value)), made(journal)))
    del value["deployments"][0]
    assert not all(agrees for agrees, _ in recomputed(claimed(json.dumps(value)), made(journal)))
