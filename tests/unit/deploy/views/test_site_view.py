"""What people see of a bus: the picture it adds up to, and the words and stories made from its messages."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus_schemas import v1
from deploy.views.explain import explain
from deploy.views.live_view import DemoStatus, plain_line, watts_bar
from deploy.views.site_view import SiteView
from deploy.views.status import as_json, as_text
from deploy.views.terminal_view import panel
from deploy.views.words import sentence

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def scaling(decision_id: int, prefill: int, decode: int) -> v1.ScalingDecision:
    return v1.ScalingDecision(
        time=NOW,
        deployment="chat",
        decision_id=decision_id,
        incarnation="i",
        epoch=1,
        num_prefill_workers=prefill,
        num_decode_workers=decode,
        pools={
            "prefill": v1.PoolTarget(role="prefill", replicas=prefill),
            "decode": v1.PoolTarget(role="decode", replicas=decode),
        },
        reasons=(v1.Reason(code="sla", text="2 serve 9 requests/s in time"),),
    )


def scaled(decision_id: int, scaled_id: int, status: v1.AckStatus = v1.AckStatus.APPLIED) -> v1.ScalingAck:
    return v1.ScalingAck(
        time=NOW, deployment="chat", decision_id=decision_id, scaled_decision_id=scaled_id, status=status
    )


def record(**changes: Any) -> v1.PlanRecord:
    fields: dict[str, object] = {
        "time": NOW,
        "deployment": "chat",
        "site": "row",
        "decision_id": 1,
        "scaled_decision_id": 0,
        "observed": {"requests": 90.0, "interval_s": 10.0, "ttft_ms": 321.0},
        "missing": {"itl_ms": "no_data"},
        "targets": {"ttft_ms": 500.0},
        "forecasts": {"request_rate_per_s": v1.ForecastRecord(mean=9, lower=8, upper=11, horizon_s=60, model="ewma")},
        "corrections": {"prefill": 1.25},
        "pools": {
            "prefill": v1.PoolRecord(
                role="prefill",
                current=1,
                wanted=4,
                granted=2,
                cap_watts=616,
                chain=(v1.Reason(code="sla", text="4 are needed"), v1.Reason(code="max_step", text="2 at a time")),
                values=(4, 2),
            )
        },
        "gpu_power": {
            "prefill": v1.PoolPowerRecord(
                assumed_p_u_watts=616,
                p_u_watts=550,
                batch=1,
                samples=12,
                bounds=3,
                drawn_watts=500,
                expected_watts=525,
            )
        },
        "notes": (v1.Reason(code="steady", text="nothing to do"),),
        "budget_watts": 1000.0,
        "charged_watts": 900.0,
        "enforced_watts": 800.0,
    }
    return v1.PlanRecord.model_validate({**fields, **changes})


def telemetry(at: datetime, *watts: tuple[float, float]) -> v1.NodeTelemetry:
    gpus = tuple(
        v1.GpuTelemetry(
            gpu=f"g{index}",
            draw_watts=draw,
            enforced_watts=cap,
            default_watts=700,
            min_watts=200,
            max_watts=700,
        )
        for index, (draw, cap) in enumerate(watts)
    )
    return v1.NodeTelemetry(time=at, node="n", gpus=gpus)


def power_ack(at: datetime, *caps: float) -> v1.PowerAck:
    gpus = tuple(v1.GpuInForce(gpu=f"g{index}", enforced_watts=cap) for index, cap in enumerate(caps))
    return v1.PowerAck(
        time=at, node="n", decision_id=3, applied_decision_id=3, epoch=1, status=v1.AckStatus.APPLIED, gpus=gpus
    )


def full() -> SiteView:
    picture = SiteView()
    for message in (scaling(1, 2, 1), scaled(0, 0), record(), telemetry(NOW, (300, 400), (100, 400))):
        picture.add(message)
    return picture


def test_a_picture_counts_and_keeps_the_newest() -> None:
    picture = full()
    picture.add(scaling(2, 3, 1))
    assert (picture.decisions, picture.acks) == (2, 1)
    assert picture.deployments["chat"].decision_id == 2
    assert picture.deployments["chat"].scaled_decision_id == 0
    assert picture.drawn_watts == 400
    assert picture.budget_watts == 1000


@pytest.mark.parametrize(("later_s", "watts"), [(1, 500), (-1, 800)])
def test_caps_in_force_come_from_whichever_report_is_newer(later_s: int, watts: float) -> None:
    picture = full()
    picture.add(power_ack(NOW + timedelta(seconds=later_s), 250, 250))
    assert picture.enforced_watts == watts


def test_nothing_seen_is_not_zero_watts_of_budget() -> None:
    assert SiteView().budget_watts is None
    assert "no telemetry" in watts_bar(SiteView())


def test_each_line_names_who_what_and_why() -> None:
    assert sentence(scaling(4, 2, 1)) == "chat scaling #4: prefill=2 decode=1; 2 serve 9 requests/s in time"
    failed = scaled(4, 3, v1.AckStatus.FAILED).model_copy(update={"reason": "no free GPU"})
    assert sentence(failed) == "chat scaling #4 failed; no free GPU"
    assert "500 W in force" in sentence(power_ack(NOW, 250, 250))


def test_a_decision_without_pools_falls_back_to_the_virtual_connector_counts() -> None:
    bare = scaling(0, 2, 1).model_copy(update={"pools": {}, "reasons": (), "num_decode_workers": -1})
    assert sentence(bare) == "chat scaling #0: prefill=2 decode=-1"


def test_the_explanation_has_every_link_of_the_chain_in_order() -> None:
    story = explain(record(), scaling(1, 2, 1), scaled(1, 1))
    parts = ["observed", "target 500", "forecast", "band 8 to 11", "model", "wanted 4", "sla -> 4", "max_step -> 2"]
    places = [story.index(part) for part in (*parts, "granted 2 at 616 W")]
    assert places == sorted(places)
    assert "itl_ms: missing (no_data)" in story
    assert "uses at most 550 W a GPU (P_u), learned (assumed: 616 W) at 1 sequences a replica (12 draws below" in story
    assert "draws 500 W a GPU, expected 525 W (5% too much)" in story
    assert "carried out up to #1" in story


def test_the_story_of_a_tick_without_a_decision_says_what_is_carried_out() -> None:
    assert "carried out up to #0" in explain(record(), None, None)


def test_status_names_load_pools_nodes_and_watts() -> None:
    text = as_text(full(), NOW)
    for part in ("9 req/s", "prefill", "granted   2", "n: 400 W drawn, 800 W capped", "1000 budget"):
        assert part in text
    data = json.loads(json.dumps(as_json(full(), NOW)))
    assert data["deployments"]["chat"]["scaled_decision_id"] == 0
    assert data["nodes"]["n"]["enforced_watts"] == 800


def test_status_repeats_what_the_records_ask_of_the_settings_once_for_each_site() -> None:
    unset = v1.Reason(code="expected_gpus", text="expected_gpus is not set and 2 GPUs have reported")
    more = v1.Reason(code="expected_gpus", text="2 GPUs have reported and expected_gpus says 1")
    other = v1.Reason(code="budget_cut", text="the budget was cut")
    picture = full()
    picture.add(record(notes=(unset, other)))
    picture.add(record(deployment="draft", notes=(unset,)))
    picture.add(record(deployment="far", site="hall", notes=(more,)))
    lines = [f"hall: {more.text}", f"row: {unset.text}"]
    assert as_json(picture, NOW)["hints"] == lines
    assert [line for line in as_text(picture, NOW).splitlines() if line in lines] == lines
    picture.add(record(notes=(other,)))
    picture.add(record(deployment="draft"))
    picture.add(record(deployment="far", site="hall"))
    assert as_json(picture, NOW)["hints"] == []
    assert "expected_gpus" not in as_text(picture, NOW)


def test_the_live_view_renders_with_everything_and_with_nothing() -> None:
    from rich.console import Console

    run = DemoStatus("title", "hint", 60.0, 1.0)
    for picture in (full(), SiteView()):
        console = Console(width=160, record=True, file=None, quiet=False, force_terminal=False)
        with console.capture() as caught:
            console.print(panel(picture, run, 160, 40))
        assert "hint" in caught.get()
    assert "9 req/s" in plain_line(full(), run)
    assert "800 W capped of 1000 W" in plain_line(full(), run)
