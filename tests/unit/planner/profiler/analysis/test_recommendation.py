"""Recommendations: the guide's lines, and its rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.profiler.analysis.recommendation import Objective, Targets, lines, of_objective, recommend, unweighed
from tests.unit.planner.profiler.rows import KV_TOKENS, TARGETS, row


def test_the_lines_of_the_guide_word_for_word() -> None:
    """The figures of its example: TTFT 48.37 ms at tokens/s/GPU 15505.23, ITL 4.83 ms at 51.22, with a target of 50."""
    prefill = row("prefill", 48.37, tp=4, isl=3000)
    decode = row("decode", 4.83, tp=4, isl=2900)
    targets = Targets(isl=3000, osl=150, ttft_ms=50.0, itl_ms=5.0)
    found = lines(recommend([prefill], [decode], targets, {4: 10_000_000}), targets)
    assert found == (
        "Analyzing results and generate recommendations...",
        "Suggested prefill TP:4 (TTFT 48.37 ms, throughput 15505.48 tokens/s/GPU)",
        "Suggested planner upper/lower bound for prefill queue size: 0.24/0.10",
        "Suggested decode TP:4 (ITL 4.83 ms, throughput 51.76 tokens/s/GPU)",
        "Suggested planner upper/lower bound for decode kv cache utilization: 0.20/0.10",
    )


def test_of_those_that_meet_the_target_the_one_with_most_per_gpu_is_chosen() -> None:
    prefill = [row("prefill", 80, tp=1), row("prefill", 45, tp=2), row("prefill", 30, tp=4)]
    decode = [row("decode", ms, in_flight=n) for n, ms in ((1, 5.0), (16, 9.0), (64, 12.0))]
    found = recommend(prefill, decode, TARGETS, {1: KV_TOKENS, 2: KV_TOKENS, 4: KV_TOKENS})
    assert (found.prefill.point.tp, found.decode.point.in_flight) == (2, 16)
    assert found.kv_bounds == pytest.approx((16 * 1100 / KV_TOKENS + 0.2, 0.1))


def test_where_none_meets_the_target_the_fastest_is_named_with_a_word_about_it() -> None:
    prefill = [row("prefill", 80, tp=1), row("prefill", 60, tp=2)]
    decode = [row("decode", 15), row("decode", 25, in_flight=8)]
    found = recommend(prefill, decode, TARGETS, {1: KV_TOKENS})
    assert (found.prefill.point.tp, found.decode.point.in_flight) == (2, 1)
    text = lines(found, TARGETS)
    assert "No TP size meets the TTFT target of 50 ms; the fastest follows" in text
    assert "No TP size meets the ITL target of 10 ms; the fastest follows" in text


def test_goodput_per_watt_is_of_points_that_meet_the_target_and_has_watts() -> None:
    prefill = [row("prefill", 40, watts=600), row("prefill", 30, tp=2, watts=1200)]
    decode = [
        row("decode", 5, in_flight=1, watts=300),
        row("decode", 8, in_flight=8, watts=400),
        row("decode", 20, in_flight=64, watts=500),
    ]
    found = recommend(prefill, decode, TARGETS, {1: KV_TOKENS, 2: KV_TOKENS})
    text = lines(found, TARGETS)
    assert text[-2:] == (
        "Best goodput per watt, prefill: TP:1 (41.67 tokens/s/W, 600 W/GPU)",
        "Best goodput per watt, decode: TP:1 with 8 in flight (2.50 tokens/s/W, 400 W/GPU)",
    )
    with pytest.raises(ValueError, match="points of both phases"):
        recommend(prefill, [], TARGETS, {})


def test_an_objective_chooses_among_the_tp_sizes() -> None:
    """TP 1 is best per GPU, TP 4 fastest, TP 2 best per watt; TP 8 saves more and misses the target."""
    table = [
        row("decode", 9.0, tp=1, in_flight=16, watts=600.0),
        row("decode", 8.0, tp=2, in_flight=16, watts=500.0),
        row("decode", 4.0, tp=4, watts=900.0),
        row("decode", 7.0, tp=4, in_flight=16, watts=2000.0),
        row("decode", 11.0, tp=8, in_flight=16, watts=100.0),
    ]
    objectives: tuple[Objective, ...] = ("throughput", "latency", "goodput_per_watt")
    chosen = {objective: {one.point.tp for one in of_objective(table, 10.0, objective)} for objective in objectives}
    assert chosen == {"throughput": {1, 2, 4, 8}, "latency": {4}, "goodput_per_watt": {2}}
    kv_tokens = dict.fromkeys((1, 2, 4, 8), KV_TOKENS)
    recommended = {
        objective: recommend([row("prefill", 40)], table, replace(TARGETS, objective=objective), kv_tokens)
        for objective in objectives
    }
    assert {name: one.decode.point.tp for name, one in recommended.items()} == {
        "throughput": 1,
        "latency": 4,
        "goodput_per_watt": 2,
    }
    assert unweighed(table, "goodput_per_watt") == ""


def test_without_a_draw_goodput_per_watt_is_not_weighed_and_says_so() -> None:
    table = [row("decode", 9.0), row("decode", 8.0, tp=2)]
    assert of_objective(table, 10.0, "goodput_per_watt") == tuple(table)
    assert unweighed(table, "goodput_per_watt").startswith("no draw was measured")
    assert unweighed(table, "latency") == ""
