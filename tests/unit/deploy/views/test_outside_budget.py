"""GPUs that a budget does not cover: out of every sum beside the budget, and named in `status` and `budget show`."""

from __future__ import annotations

from datetime import UTC, datetime

from bus_schemas import v1
from deploy.views import budgets, status
from deploy.views.freshness import problems
from deploy.views.in_force import caps_in_force
from deploy.views.site_view import SiteView

AT = datetime(2026, 1, 2, tzinfo=UTC)


def view() -> SiteView:
    """Two GPUs with workers at 400 W, one parked at 200 W, one that another's pod holds at 700 W: 1 kW for workers."""
    picture = SiteView()
    watts = {"g0": 400.0, "g1": 400.0, "g2": 200.0, "g3": 700.0}
    caps = tuple(
        v1.GpuCap(gpu=gpu, cap_watts=watts[gpu], fallback_watts=200.0, charged_watts=watts[gpu])
        for gpu in ("g0", "g1", "g2")
    )
    gpus = tuple(
        v1.GpuTelemetry(
            gpu=gpu, index=index, draw_watts=each, enforced_watts=each, default_watts=700.0, min_watts=200.0,
            max_watts=700.0,
        )
        for index, (gpu, each) in enumerate(watts.items())
    )  # fmt: skip
    decision = v1.PowerDecision(
        time=AT, node="n0", site="hall-2", decision_id=3, incarnation="i", epoch=1, caps=caps, valid_for_s=30.0,
        budget_watts=1000.0, outside_gpus=("g2",), released_gpus=("g3",),
    )  # fmt: skip
    for message in (decision, v1.NodeTelemetry(time=AT, node="n0", gpus=gpus)):
        picture.add(message)
    return picture


def test_sums_beside_a_budget_leave_out_what_it_does_not_cover() -> None:
    node = view().nodes["n0"]
    assert (node.enforced_watts, node.drawn_watts, node.charged_watts) == (800.0, 800.0, 800.0)
    assert not [line for line in problems(view(), AT) if "above its budget" in line]
    assert caps_in_force(view(), "hall-2", 1000.0, None, AT).caps_watts == 800.0


def test_status_and_budget_show_name_what_is_outside() -> None:
    words = "covers workers only: 2 GPUs are outside the budget, and may draw 900 W more"
    assert f"hall-2: {words}" in status.as_text(view(), AT).splitlines()
    assert status.as_json(view(), AT)["outside_budget"] == [f"hall-2: {words}"]
    shown = budgets.budgets(view(), (), AT)
    assert words in budgets.as_text(shown, everything=False)
    (row,) = budgets.as_json(shown)
    assert (row["outside_gpus"], row["outside_watts"]) == (2, 900.0)


def test_where_all_gpus_are_covered_nothing_is_outside() -> None:
    assert status.outside(SiteView()) == []
