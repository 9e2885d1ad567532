"""Histograms, what a planner observes, the metrics page, rows of a run, scores of budgets, charts."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId
from planner.domain.reading import Missing, Sample
from planner.domain.request import Request
from planner.sim.cluster.metrics_page import render
from planner.sim.cluster.orchestrator import Orchestrator
from planner.sim.cluster.weighted_histogram import WeightedHistogram
from planner.sim.evaluation.plant_observer import Watch
from planner.sim.evaluation.scores import _comply_s, _over
from planner.sim.evaluation.svg_chart import ChartLine, chart
from planner.sim.evaluation.timeline import WINDOW_S
from planner.sim.workload.scenario import BudgetSteps
from tests.unit.planner.sim.small_plants import disaggregated, finish


@given(values=st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_a_histogram_counts_like_prometheus(values: list[float]) -> None:
    histogram = WeightedHistogram((1.0, 2.5, 5.0))
    for value in values:
        histogram.observe(value)
    told = dict(histogram.cumulative())
    for bound in (1.0, 2.5, 5.0):
        assert told[repr(bound)] == sum(value <= bound for value in values)
    assert told["+Inf"] == len(values) == histogram.total
    assert histogram.sum == pytest.approx(sum(values))
    assert histogram.squares == pytest.approx(sum(value * value for value in values))


def test_the_weight_within_a_value_is_spread_over_its_bucket() -> None:
    histogram = WeightedHistogram((1.0, 2.0, 4.0))
    for value, weight in ((0.5, 1.0), (3.0, 2.0), (9.0, 4.0)):
        histogram.observe(value, weight)
    assert [histogram.within(value) for value in (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 99.0)] == [0.5, 1, 1, 2, 3, 3, 3]


def test_an_observation_covers_exactly_its_interval() -> None:
    plant = disaggregated(2, 1)
    watch = Watch(plant, DeploymentId("d"), 150.0, 10.5)
    idle = watch.deployment()
    assert idle.requests == Sample(0.0)
    assert isinstance(idle.isl_tokens, Missing)
    assert isinstance(idle.ttft_ms, Missing)
    finish(plant, [Request(1.0, 1000, 50), Request(2.0, 3000, 100)])
    seen = watch.deployment()
    assert seen.requests == Sample(2.0)
    assert seen.isl_tokens == Sample(2000.0)
    assert isinstance(seen.isl_cv2, Sample)
    assert seen.isl_cv2.value == pytest.approx(0.25)
    assert isinstance(seen.itl_ms, Sample)
    assert 10 < seen.itl_ms.value < 12
    assert seen.ttft_within == Sample(0.5), "prompts of 1000 and 3000 tokens take 100 and 300 ms"
    assert isinstance(seen.itl_within, Sample)
    assert 0.0 < seen.itl_within.value < 1.0
    assert seen.pools[PoolId("prefill")].replicas.ready == 2
    assert watch.deployment().requests == Sample(0.0)


def test_telemetry_names_owners_and_limits() -> None:
    plant = disaggregated(1, 1)
    plant.set_cap("GPU-node-0-01", 333_000)
    node = Watch(plant, DeploymentId("d"), 150.0, 10.5).nodes()[NodeId("node-0")]
    held = [gpu for gpu in node.gpus.values() if gpu.deployment is not None]
    assert {gpu.pool for gpu in held} == {"prefill", "decode"}
    assert node.gpus[GpuId("GPU-node-0-01")].enforced_mw == 333_000
    assert node.gpus[GpuId("GPU-node-0-07")].pool is None


def test_the_page_has_one_type_line_a_family_and_escaped_labels() -> None:
    plant = finish(disaggregated(), [Request(0.0, 100, 10)])
    page = render(plant, 'a"b\\c', "ns")
    families = re.findall(r"^# TYPE (\S+)", page, re.MULTILINE)
    assert len(families) == len(set(families))
    assert 'model="a\\"b\\\\c"' in page
    assert (
        'dynamo_frontend_time_to_first_token_seconds_bucket{model="a\\"b\\\\c",dynamo_namespace="ns",le="+Inf"} 1'
        in page
    )
    assert 'wattscale_sim_workers{dynamo_namespace="ns",pool="decode",state="ready"} 1' in page


def test_requests_that_wait_without_a_worker_are_counted_at_the_router() -> None:
    plant = disaggregated(startup_s=60.0)
    plant.drain_one("prefill")
    plant.submit([Request(0.1, 100, 5)])
    plant.advance(1.0)
    assert 'dynamo_component="prefill",worker="router"} 1' in render(plant, "m", "ns")


def test_a_fleet_tries_again_until_gpus_are_free_and_settles_once() -> None:
    plant = disaggregated(3, 3, gpus=6, startup_s=5.0)
    fleet, settled = Orchestrator(plant), []
    fleet.aim({"prefill": 4, "decode": 3}, on_settled=lambda: settled.append(plant.now_s))
    assert fleet.pending == {"prefill": 1}
    plant.advance(10.0)
    assert not settled
    fleet.aim({"decode": 2}, on_settled=lambda: settled.append(plant.now_s))
    plant.advance(30.0)
    assert len(settled) == 1
    assert plant.worker_counts()["prefill"].ready == 4
    assert plant.worker_counts()["decode"].ready == 2
    assert fleet.pending == {}


def test_a_newer_aim_overtakes_an_older_one() -> None:
    plant = disaggregated(1, 1, startup_s=20.0)
    fleet, settled = Orchestrator(plant), []
    fleet.aim({"prefill": 3}, on_settled=lambda: settled.append("old"))
    plant.advance(5.0)
    fleet.aim({"prefill": 1}, on_settled=lambda: settled.append("new"))
    plant.advance(60.0)
    assert settled == ["new"]
    assert plant.worker_counts()["prefill"].ready == 1


STEPS = BudgetSteps(((0.0, 10_000), (20.0, 6_000), (60.0, 9_000)))


def test_a_budget_of_steps() -> None:
    assert [STEPS.at(t) for t in (0.0, 19.9, 20.0, 59.0, 60.0, 1e6)] == [10_000, 10_000, 6_000, 6_000, 9_000, 9_000]
    assert STEPS.demanded(25.0) == 10_000  # within the compliance window
    assert STEPS.demanded(31.0) == 6_000
    assert STEPS.demanded(61.0) == 9_000
    assert STEPS.scaled(0.5).at(0.0) == 5_000


def test_violation_is_what_stands_above_outside_the_window_after_a_cut() -> None:
    watts = np.full(50, 8.0)
    over = _over(watts, STEPS)
    late = [i for i in range(50) if over[i] > 0]
    assert late == list(range(int(30 / WINDOW_S), int(60 / WINDOW_S)))
    assert over[late[0]] == pytest.approx(2.0)
    assert _over(watts, None).sum() == 0


def test_time_to_comply() -> None:
    watts = np.full(50, 5.0)
    assert _comply_s(watts, STEPS, 100.0) == WINDOW_S
    watts[10:14] = 7.0
    assert _comply_s(watts, STEPS, 100.0) == 5 * WINDOW_S
    assert _comply_s(np.full(50, 7.0), STEPS, 100.0) == float("inf")
    assert _comply_s(watts, None, 100.0) is None
    assert _comply_s(watts, BudgetSteps(((0.0, 5_000),)), 100.0) is None


def test_a_chart_keeps_peaks_and_escapes_names() -> None:
    points = [(float(i), 1000.0 if i == 4321 else 1.0) for i in range(10_000)]
    svg = chart(
        "a <b>", "W", [ChartLine("x & y", points), ChartLine("target", [(0, 5.0), (1e4, 5.0)], dashed=True)], 1e4
    )
    assert "a &lt;b&gt;" in svg
    assert "x &amp; y" in svg
    heights = [float(y) for y in re.findall(r"L[\d.]+ ([\d.]+)", svg)]
    assert min(heights) == pytest.approx(26.0)  # the peak survives the thinning
    assert svg.count("L") < 2500
    assert "stroke-dasharray" in svg
    empty = chart("nothing", "", [replace(ChartLine("x", []))], 0.0)
    assert empty.startswith("<svg")


def test_a_chart_that_is_cut_off_says_so_and_stays_inside() -> None:
    line = ChartLine("ttft", [(0.0, 10.0), (60.0, 500.0)])
    cut = chart("TTFT", "ms", [line], 60.0, most=100.0)
    assert "ms; cut off at 100, highest 500" in cut
    assert "cut off" not in chart("TTFT", "ms", [line], 60.0)
    # The top of the axis is at 26: nothing is drawn above it, into the title.
    assert min(float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", cut)) >= 26.0


def test_seven_long_names_stand_above_the_chart_and_in_it() -> None:
    lines = [
        ChartLine(f"static:6p{number}d at 80% (12544 W)", [(0.0, 1.0), (60.0, float(number))]) for number in range(7)
    ]
    svg = chart("TTFT", "ms", lines, 60.0, most=4.0)
    assert len(set(re.findall(r'stroke="(#[0-9a-f]+)"', svg))) == 7
    places = [(float(x), float(y)) for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="l"', svg)]
    assert len(places) == 7
    below = float(re.findall(r"translate\(0 ([\d.]+)\)", svg)[0])
    assert all(15 < y < 26 + below for _, y in places), "below the title and above the lines"
    assert all(x - 7 * len(lines[0].name) >= 0 for x, _ in places)
