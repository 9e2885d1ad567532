"""Peers decide by their published rules; caps keep to budgets; our loop closes; every miss has a reason."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.sim.evaluation.html_report import html
from planner.sim.evaluation.run_batch import RunJob, run_jobs
from planner.sim.evaluation.scores import score
from planner.sim.evaluation.simulation import simulate
from planner.sim.policies import hpa_rule
from planner.sim.policies.catalogue import UnknownPolicyError, make
from planner.sim.policies.ours import OursSettings
from planner.sim.workload.scenario import BudgetSteps, card_of
from tests.unit.planner.sim.small_scenario import load, scenario

ALL = ("ours", "ours-nopower", "classic", "load", "sla+load", "hpa", "keda", "knative", "clairvoyant", "static:3p2d")


@pytest.mark.parametrize("name", ALL)
def test_every_policy_runs_and_accounts_forevery_request(name: str) -> None:
    world = scenario()
    scores = score(simulate(world, make(name)))
    assert scores.requests == len(world.trace)
    assert scores.good_requests + sum(scores.misses.values()) == scores.requests
    assert scores.gpu_hours > 0
    assert scores.good_share <= scores.reachable_share <= 1.0
    assert 0.0 < scores.token_share <= 1.0
    assert scores.stall_ms_p99 >= scores.itl_ms_p99
    assert 0 < scores.serving_energy_joules <= scores.energy_joules


@pytest.mark.parametrize("name", ["ours", "hpa"])
def test_one_seed_one_score(name: str) -> None:
    first, second = (score(simulate(scenario(seed=4), make(name))) for _ in range(2))
    assert replace(first, wall_s=0.0) == replace(second, wall_s=0.0)


def test_ours_serves_a_wave_with_fewer_gpu_hours_than_a_fleet_for_its_peak() -> None:
    ours = score(simulate(scenario(), make("ours")))
    static = score(simulate(scenario(), make("static:6p3d")))
    assert ours.good_share > 0.9
    assert ours.gpu_hours < static.gpu_hours


@pytest.mark.parametrize("name", ["ours", "static:4p2d+uniform", "hpa+role"])
def test_a_cut_is_kept_to(name: str) -> None:
    budget = BudgetSteps(((0.0, 7_000_000), (200.0, 4_200_000), (400.0, 7_000_000)))
    scores = score(simulate(scenario(budget=budget), make(name)))
    assert scores.violation_watt_seconds == 0
    assert scores.comply_s is not None
    assert scores.comply_s <= 10.0


def test_a_meter_that_is_only_watched_is_above_the_budget_at_times() -> None:
    budget = BudgetSteps(((0.0, 2_600_000),))
    scores = score(simulate(scenario(budget=budget), make("static:6p3d")))
    assert scores.violation_watt_seconds > 0
    assert scores.violation_share > 0


def test_nameplate_provisioning_forbids_gpus() -> None:
    budget = BudgetSteps(((0.0, 4_000_000),))
    ended = simulate(scenario(budget=budget), make("static:6p3d+tdp"))
    held = sum(ended.run.timeline.rows[-1].ready.values())
    card = card_of("h200")
    assert held * card.default_mw + (12 - held) * card.idle_mw <= 4_000_000
    assert held < 9


def test_slow_engines_count_as_the_model_s_fault() -> None:
    scores = score(simulate(scenario(truth=0.5, itl_ms=14.0), make("static:6p1d")))
    assert scores.misses.get("model", 0) > 0


@pytest.mark.parametrize("name", ["nonsense", "static:4p", "hpa+nonsense", "clairvoyant+tdp", "clairvoyant:1.2", ""])
def test_an_unknown_policy_is_named(name: str) -> None:
    with pytest.raises(UnknownPolicyError):
        make(name)


def test_hpa_utilisation_counts_unready_pods_as_idle_on_the_way_up() -> None:
    assert hpa_rule.by_utilisation([0.9, 0.9], 0, 0.6) == 3
    assert hpa_rule.by_utilisation([0.9, 0.9], 1, 0.6) == 3  # 1.8 / 3 pods is at target: no more
    assert hpa_rule.by_utilisation([0.62, 0.62], 0, 0.6) == 2  # within tolerance
    assert hpa_rule.by_utilisation([0.1, 0.1, 0.1], 0, 0.6) == 1
    assert hpa_rule.by_total(12.0, 3, 2.0) == 6
    assert hpa_rule.by_total(6.3, 3, 2.0) == 3


def test_hpa_scales_down_only_after_its_window_and_up_at_its_rate() -> None:
    hpa = hpa_rule.Hpa(1, 50)
    assert hpa.decide(0.0, 4, 20) == 8
    assert hpa.decide(15.0, 8, 20) == 16
    assert hpa.decide(30.0, 16, 2) == 16
    assert hpa.decide(200.0, 16, 2) == 16
    assert hpa.decide(331.0, 16, 2) == 2


@settings(max_examples=60, deadline=None)
@given(wanted=st.lists(st.integers(0, 60), min_size=1, max_size=60))
def test_hpa_stays_within_bounds_and_rates(wanted: list[int]) -> None:
    hpa, count = hpa_rule.Hpa(1, 40), 5
    for step, desired in enumerate(wanted):
        before = count
        count = hpa.decide(15.0 * step, count, desired)
        assert 1 <= count <= 40
        assert count <= max(before + 4, 2 * before)


def test_parallel_runs_and_their_report(tmp_path: object) -> None:
    world = scenario(trace=load(200.0))
    jobs = [RunJob(name, 0, name, None, OursSettings()) for name in ("ours", "hpa")]
    told: list[tuple[int, float]] = []
    results = list(run_jobs(world, jobs, 2, lambda number, share: told.append((number, share))))
    alone = list(run_jobs(world, jobs[:1], 1, lambda number, share: None))
    by_name = {result.job.policy: result for result in results}
    assert replace(by_name["ours"].scores, wall_s=0.0) == replace(alone[0].scores, wall_s=0.0)
    assert {row.phase for row in by_name["ours"].shares} == {"prompts", "answers"}
    for predicted, measured, apart in by_name["ours"].share_errors().values():
        assert 0.0 < predicted <= 1.0
        assert 0.0 < measured <= 1.0
        assert abs(predicted - measured) <= apart + 1e-9
    assert not by_name["hpa"].shares
    assert {number for number, share in told if share == 1.0} == {0, 1}
    page = html("Simulation <1>", {"load": "a & b"}, world, results)
    assert page.count("<svg") == 4 + 2 * 6
    compared = page[page.index("Policies compared") :].partition("<h2>")[0]
    assert compared.count("<svg") == 4
    for svg in compared.split("<svg")[1:]:
        assert svg.count("<path") >= 2, "both policies are in the same chart"
        assert {">ours</text>", ">hpa</text>"} <= set(re.findall(r">[^<>]+</text>", svg))
    columns = re.findall(r"<th>([^<]+)</th>", page)
    explained = re.findall(r"<tr><td>([^<]+)</td>", page[page.index("What the columns") :])
    assert set(columns) <= set(explained)
    assert "Simulation &lt;1&gt;" in page
    assert "http://" not in page
    assert "<script" not in page


@pytest.mark.parametrize("name", ["ours", "static:6p3d"])
def test_what_is_drawn_never_stands_above_the_caps_of_the_same_gpus(name: str) -> None:
    rows = simulate(scenario(), make(name)).run.timeline.rows
    assert rows
    assert all(row.watts <= row.caps_watts + 1.0 for row in rows)
