"""Predicted beside measured, and what a gateway should shed: on a site that is short of watts."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas import codec, v1
from deploy.views.explain import explain
from planner.adapters import to_wire
from planner.core.good_shares import admitted
from planner.domain.plan import DeploymentPlan
from planner.domain.reading import Sample
from tests.unit.planner.core.small_site import D, SmallSite, deployment, planner, traffic


def last_tick(watts: float, rate: float, service_class: str | None = None) -> tuple[DeploymentPlan, SmallSite]:
    """The fourth tick of a site of eight GPUs whose engines keep 90 and 80 % of the targets."""
    one = deployment(priority=2, service_class=service_class)
    site = SmallSite(planner(one, budget_mw=round(watts * 1000)))
    site.run_pods(prefill=4, decode=2)
    seen = traffic(rate, ttft_within=Sample(0.9), itl_within=Sample(0.8))
    for _ in range(4):
        plan = site.tick(seen).deployments[D]
        site.pass_time(30)
    return plan, site


def record_of(plan: DeploymentPlan, site: SmallSite) -> v1.PlanRecord:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return to_wire.plan_record(plan, site.config.deployments[D], None, decision_id=1, scaled_decision_id=1, at=at)


def test_a_site_short_of_watts_says_what_is_late_and_how_much_to_shed() -> None:
    plan, site = last_tick(2400.0, 120.0)
    assert plan.shed is not None
    assert plan.shed.priority == 2
    assert plan.shed.late_share == pytest.approx(plan.shortfall)
    assert plan.shed.late_share > 0.5
    assert 0.1 < plan.shed.shed_share < 0.9
    assert plan.shed.shed_req_per_s == pytest.approx(plan.shed.shed_share * 120.0, rel=0.05)
    text = explain(record_of(plan, site), None, None)
    assert "a gateway should shed or delay" in text
    assert "priority 2: load of lower priority goes first" in text


def test_the_record_has_the_class_of_service_and_what_to_shed_of_it() -> None:
    plan, site = last_tick(2400.0, 120.0, "interactive")
    record = record_of(plan, site)
    assert record.service_class == "interactive"
    assert record.shed is not None
    assert record.shed.by_class is not None
    of_class = record.shed.by_class["interactive"]
    assert of_class.req_per_s == pytest.approx(120.0, rel=0.05)
    assert of_class.shed_share == pytest.approx(record.shed.shed_share)
    assert of_class.shed_req_per_s == pytest.approx(record.shed.shed_req_per_s)
    assert "class interactive on this site: shed or delay " in explain(record, None, None)


def test_a_class_of_service_changes_no_decision_and_is_absent_where_none_is_set() -> None:
    with_one, _ = last_tick(2400.0, 120.0, "interactive")
    without, site = last_tick(2400.0, 120.0)
    assert (with_one.pools, with_one.notes) == (without.pools, without.notes)
    body = json.loads(codec.encode(record_of(without, site)))
    assert "service_class" not in body
    assert "by_class" not in body["shed"]


def test_what_is_left_after_shedding_is_in_time() -> None:
    plan, _ = last_tick(2400.0, 120.0)
    assert plan.shed is not None
    less, _ = last_tick(2400.0, 120.0 * (1.0 - plan.shed.shed_share) * 0.9)
    assert less.shortfall < 0.1


def test_no_shedding_is_advised_where_all_load_is_served() -> None:
    plan, site = last_tick(5600.0, 10.0)
    assert plan.shortfall == 0.0
    assert plan.shed is None
    assert record_of(plan, site).shed is None


def test_each_phase_has_what_was_predicted_for_the_interval_beside_what_was_measured() -> None:
    plan, site = last_tick(2400.0, 120.0)
    assert set(plan.good) == {"prompts", "answers"}
    assert (plan.good["prompts"].measured, plan.good["answers"].measured) == (0.9, 0.8)
    predicted = [share.predicted for share in plan.good.values()]
    assert all(value is not None and 0.0 <= value <= 1.0 for value in predicted)
    assert record_of(plan, site).good["prompts"].measured == 0.9
    assert "prompts in time over the last interval: " in explain(record_of(plan, site), None, None)


@given(st.integers(1, 8), st.floats(0.2, 1.0), st.floats(0.5, 6.0))
def test_by_the_law_of_one_over_count_the_share_is_exact(count: int, speed: float, load: float) -> None:
    felt = (float("inf"), *(load / n for n in range(1, 10)))
    assert admitted(felt, count, speed) == pytest.approx(min(1.0, count * speed / load), rel=1e-6)


def test_no_replica_takes_nothing_and_no_load_needs_none() -> None:
    assert admitted((float("inf"), 1.0), 0, 1.0) == 0.0
    assert admitted((0.0, 0.0), 0, 1.0) == 1.0
