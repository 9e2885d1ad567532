"""Nothing older than its term is shown as now: leader, ticks, nodes, and caps above a budget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bus_schemas import v1
from deploy.views.explain import explain
from deploy.views.freshness import NODE_TERM_S, leader, missed_targets, problems, words
from deploy.views.in_force import caps_in_force
from deploy.views.site_view import SiteView
from deploy.views.status import as_json, as_text

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def gpu(watts: float) -> v1.GpuTelemetry:
    return v1.GpuTelemetry(
        gpu="g", draw_watts=100.0, enforced_watts=watts, default_watts=700, min_watts=200, max_watts=700
    )


def view(
    *, lease_s: float = 0.0, tick_s: float = 0.0, node_s: float = 0.0, caps: float = 300.0, budget: float = 1000.0
) -> SiteView:
    """A site whose parts were last seen so many seconds ago."""
    found = SiteView()

    def at(ago_s: float) -> datetime:
        return NOW - timedelta(seconds=ago_s)

    found.add(v1.Lease(time=at(lease_s), holder="planner-1", ttl_s=5.0))
    observed = {"interval_s": 10.0, "ttft_ms": 600.0}
    found.add(
        v1.PlanRecord(
            time=at(tick_s),
            deployment="chat",
            site="row",
            decision_id=0,
            observed=observed,
            targets={"ttft_ms": 500.0},
            budget_watts=budget,
        )
    )
    cap = v1.GpuCap(gpu="g", cap_watts=caps, fallback_watts=200.0)
    found.add(
        v1.PowerDecision(
            time=at(tick_s),
            node="n-1",
            site="row",
            budget_watts=budget,
            decision_id=3,
            incarnation="i",
            epoch=1,
            valid_for_s=30.0,
            caps=(cap,),
        )
    )
    found.add(v1.NodeTelemetry(time=at(node_s), node="n-1", gpus=(gpu(caps),)))
    return found


def test_a_site_that_is_well_has_no_problem() -> None:
    assert problems(view(), NOW) == []
    assert leader(view(), NOW) == "planner-1"


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (view(lease_s=60.0), "no planner leads"),
        (view(tick_s=45.0), "chat: the newest tick is 45 s old"),
        (view(node_s=NODE_TERM_S + 30.0), "n-1: silent for 45 s"),
        (view(caps=1200.0), "site row: caps of 1,200 W are above its budget of 1,000 W"),
    ],
)
def test_what_is_over_its_term_is_named_in_text_and_json(found: SiteView, problem: str) -> None:
    assert problems(found, NOW) == [problem]
    assert f"! {problem}" in as_text(found, NOW)
    assert as_json(found, NOW)["problems"] == [problem]


def test_a_released_lease_leads_no_more() -> None:
    found = view()
    found.add(v1.Lease(time=NOW, holder="planner-1", ttl_s=5.0, released=True))
    assert leader(found, NOW) is None


def test_a_missed_target_is_listed_apart() -> None:
    assert missed_targets(view()) == ["chat: ttft_ms of 600 is above its target of 500"]


def test_json_carries_times_and_ages() -> None:
    shown = as_json(view(tick_s=4.0, node_s=2.0), NOW)
    assert shown["deployments"]["chat"]["age_s"] == 4.0
    assert shown["nodes"]["n-1"]["seen"] == (NOW - timedelta(seconds=2)).isoformat()
    assert shown["leader"] == "planner-1"


def test_caps_are_in_force_when_a_planner_has_the_budget_and_no_cap_under_way_is_above_it() -> None:
    found = view(caps=900.0)
    assert not caps_in_force(found, "row", 800.0, 1000.0, NOW).holds
    late = caps_in_force(found, "row", 1000.0, None, NOW)
    assert late.holds
    assert late.sentence() == "caps now 900 W of 1,000 W"
    assert "100 W too much; not yet applied: n-1" in caps_in_force(found, "row", 800.0, 1000.0, NOW).sentence()
    # Lower limits than the decision under way, which still counts.
    found.add(v1.NodeTelemetry(time=NOW, node="n-1", gpus=(gpu(300.0),)))
    assert caps_in_force(found, "row", 800.0, 1000.0, NOW).caps_watts == 900.0
    assert "no planner leads" in caps_in_force(view(lease_s=60.0), "row", 1000.0, None, NOW).sentence()


@pytest.mark.parametrize(("seconds", "text"), [(8.2, "8 s"), (100.0, "100 s"), (600.0, "10 min"), (9000.0, "2 h")])
def test_ages_for_people(seconds: float, text: str) -> None:
    assert words(seconds) == text


def test_what_planners_find_wrong_and_other_budgets_are_problems() -> None:
    picture = SiteView()
    lease = v1.Lease(time=NOW, holder="one", ttl_s=10.0, budgets_watts={"row": 22_000.0, "hall": 1.0})
    picture.add(lease)
    reason = v1.Reason(code="second_agent", text="node-1: two agents report for this node; stop one of them")
    picture.add(v1.PlanRecord(time=NOW, deployment="llama", site="row", decision_id=0, problems=(reason,)))
    signs = {"two": {"row": 15_680.0, "hall": 1.0}, "three": {"row": 22_000.0}}
    for holder, budgets in signs.items():
        picture.standby[holder] = v1.Lease(time=NOW, holder=holder, ttl_s=30.0, budgets_watts=budgets)
    assert problems(picture, NOW) == [
        "site row: 22,000 W in the settings of the leader one, 15,680 W in those of two, which stands by",
        reason.text,
    ]
    later = NOW + timedelta(seconds=3600)
    assert reason.text not in problems(picture, later)
    assert not [line for line in problems(picture, later) if "stands by" in line]


def test_what_keeps_a_connector_from_carrying_out_is_shown() -> None:
    found = view()
    reason = "decode: a person with kubectl-edit set 5 replicas where the decision has 3"
    ack = {"deployment": "chat", "decision_id": 0, "scaled_decision_id": 0, "reason": reason}
    found.add(v1.ScalingAck(time=NOW, status=v1.AckStatus.PARTIAL, **ack))
    assert f"    not carried out: {reason}" in as_text(found, NOW).splitlines()
    assert as_json(found, NOW)["deployments"]["chat"]["not_carried_out"] == reason
    found.add(v1.ScalingAck(time=NOW, status=v1.AckStatus.APPLIED, **(ack | {"reason": ""})))
    assert "not carried out" not in as_text(found, NOW)
    assert as_json(found, NOW)["deployments"]["chat"]["not_carried_out"] == ""


@pytest.mark.parametrize(
    ("acknowledges", "words"),
    [(True, "decision #0, carried out none yet"), (False, "decision #0, given to an autoscaler")],
)
def test_a_decision_that_an_autoscaler_takes_waits_for_no_acknowledgement(acknowledges: bool, words: str) -> None:
    found = view()
    found.add(v1.ScalingDecision(time=NOW, deployment="chat", decision_id=0, incarnation="one", epoch=1))
    found.claimed("chat", v1.Lease(time=NOW, holder="keda", ttl_s=10.0, acknowledges=acknowledges))
    assert words in as_text(found, NOW)


@pytest.mark.parametrize(("number", "incarnation"), [(1, "one"), (0, "two")])
def test_what_kept_an_earlier_decision_is_not_shown_as_the_newest_one_s(number: int, incarnation: str) -> None:
    found = view()
    decision = v1.ScalingDecision(time=NOW, deployment="chat", decision_id=0, incarnation="one", epoch=1)
    found.add(decision)
    ack = v1.ScalingAck(
        time=NOW,
        deployment="chat",
        decision_id=0,
        incarnation="one",
        scaled_decision_id=-1,
        status=v1.AckStatus.FAILED,
        reason="decode: 1 pod cannot be scheduled",
    )
    found.add(ack)
    assert as_json(found, NOW)["deployments"]["chat"]["not_carried_out"] == ack.reason
    found.add(decision.model_copy(update={"decision_id": number, "incarnation": incarnation}))
    assert as_json(found, NOW)["deployments"]["chat"]["not_carried_out"] == ""
    assert "not carried out" not in as_text(found, NOW)


def test_what_has_not_happened_yet_has_no_number() -> None:
    found = view()
    text = as_text(found, NOW)
    assert "ITL missing (not seen yet); no decision yet; tick" in text
    assert "; decision #3, applied none yet; report" in text
    assert "#-1" not in text


def test_status_and_explain_show_what_is_left_of_a_promised_share() -> None:
    begun = datetime(2026, 1, 2, tzinfo=UTC)
    left = v1.ErrorBudgetRecord(since=begun, requests=10_000, late=150, left=0.5)
    slo = v1.SloRecord(
        slo_share=0.97, quantile=0.931, good_share=0.98, requests=300, burn_rate=0.4, day=left, month=left
    )
    found, line = (
        SiteView(),
        "promised 97 % good, sized for the 0.931 quantile; error budget left: this day 50 % (150 of",
    )
    found.add(v1.PlanRecord(time=NOW, deployment="chat", site="row", decision_id=0, slo=slo))
    assert line in as_text(found, NOW)
    assert "burn rate 0.40 over the last hour" in as_text(found, NOW)
    assert as_json(found, NOW)["deployments"]["chat"]["slo"]["day"]["left"] == 0.5
    record = found.deployments["chat"].record
    assert record is not None
    assert line in explain(record, None, None)
    assert as_json(view(), NOW)["deployments"]["chat"]["slo"] is None
