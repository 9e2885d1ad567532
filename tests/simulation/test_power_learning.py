"""A planner that is given a wrong P_u finds the right one in the closed loop, and what that is worth."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import lru_cache

import pytest

from planner.adapters.traces import Trace
from planner.core.power.p_u_estimator import Drawn
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.cluster.sim_gpu import batch_share
from planner.sim.evaluation.scores import Scores, score
from planner.sim.evaluation.simulation import simulate
from planner.sim.policies.ours import OurPlanner, OursSettings
from planner.sim.workload.generated import generated
from planner.sim.workload.scenario import DECODE, PREFILL, BudgetSteps, Scenario, card_of, disaggregated
from tests.unit.planner.sim.small_plants import profile

HOUR_S = 3600.0
CUT_S = 1800.0
TIGHT = 0.42
"""Of the GPUs' nameplate: about what the load needs when every watt is where it serves most."""
DECODE_TOLERANCE = 0.10
"""Estimates rest a little above the truth: a cap near them proves nothing, a draw below them corrects them."""
WRONG = pytest.mark.parametrize("error", [0.7, 1.3])
TOO_LOW = pytest.mark.parametrize("error", [0.7, pytest.param(1.3, marks=pytest.mark.nightly)])
TOO_HIGH = pytest.mark.parametrize("error", [1.3, pytest.param(0.7, marks=pytest.mark.nightly)])
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("power-learning")]
"""Runs are shared between the tests."""


def world(budget: BudgetSteps | None = None) -> Scenario:
    rows = itertools.takewhile(lambda r: r.t_s < HOUR_S, generated(2, requests_per_s=16.0, wave=0.0))
    engines = profile(max_batched=8192)
    return Scenario(
        trace=Trace.of("steady", rows),
        profile=engines,
        cluster=ClusterSpec(2, 6, card_of("h200")),
        pools=disaggregated(engines, "h200", startup_s=20.0, start=(3, 2)),
        ttft_ms=800.0,
        itl_ms=25.0,
        budget=budget,
    )


@lru_cache(maxsize=16)
def outcome(error: float, *, learn: bool, tight: bool) -> tuple[Scores, Drawn, Drawn]:
    """Scores, and what the planner remembers of decode and prefill. ``tight``: the budget is cut half-way."""
    scenario = world()
    if tight:
        full_mw = scenario.gpus * scenario.cluster.card.max_mw
        scenario = replace(scenario, budget=BudgetSteps(((0.0, full_mw), (CUT_S, int(TIGHT * full_mw)))))
    planner = OurPlanner(OursSettings(p_u_error=error, learn_power=learn))
    scores = score(simulate(scenario, planner))
    return scores, planner.remembered(DECODE), planner.remembered(PREFILL)


@WRONG
def test_decode_is_learned_to_within_the_tolerance(error: float) -> None:
    _, decode, _ = outcome(error, learn=True, tight=False)
    true = world().pools[1].curve
    usual = {bucket: known for bucket, known in decode.learned.estimates.items() if known.samples + known.bounds >= 20}
    assert usual
    for bucket, known in usual.items():
        assert known.p_u_mw == pytest.approx(true.p_u_mw * batch_share(2**bucket), rel=DECODE_TOLERANCE)
    assert decode.measured_mw == pytest.approx(decode.expected_mw, rel=DECODE_TOLERANCE)


def test_prefill_that_is_held_by_its_caps_rises_and_pauses_teach_no_less() -> None:
    true, (_, _, low), (_, _, high) = (
        world().pools[0].curve,
        *(outcome(error, learn=True, tight=False) for error in (0.7, 1.3)),
    )
    assert 0.8 * true.p_u_mw < low.learned.estimates[0].p_u_mw <= 1.05 * true.p_u_mw
    assert all(known.p_u_mw >= 0.99 * true.p_u_mw for known in high.learned.estimates.values())


@TOO_HIGH
def test_with_plenty_it_is_as_thrifty_as_with_the_true_p_u(error: float) -> None:
    truth, _, _ = outcome(1.0, learn=False, tight=False)
    told, _, _ = outcome(error, learn=False, tight=False)
    learned, _, _ = outcome(error, learn=True, tight=False)
    assert learned.good_share >= truth.good_share - 0.01
    # A P_u that is too high costs hardly a GPU-hour or joule while watts are plenty: there both are equal within 1 %.
    assert learned.gpu_hours < min(1.01 * told.gpu_hours, 1.15 * truth.gpu_hours)
    assert learned.serving_energy_joules < min(1.01 * told.serving_energy_joules, 1.05 * truth.serving_energy_joules)


@TOO_LOW
def test_under_a_tight_budget_it_serves_as_much_as_with_the_true_p_u_and_the_budget_holds(error: float) -> None:
    truth, _, _ = outcome(1.0, learn=False, tight=True)
    learned, _, _ = outcome(error, learn=True, tight=True)
    # Estimates rest above the truth, and a replica more is given up: 1.1 points (0.7) and 2.7 (1.3) are measured.
    assert learned.good_share >= truth.good_share - 0.03
    assert learned.joules_per_good_output_token is not None
    assert truth.joules_per_good_output_token is not None
    # Estimates rest above the truth, so that caps do too; 4 % more are measured.
    assert learned.joules_per_good_output_token < 1.06 * truth.joules_per_good_output_token
    assert learned.violation_watt_seconds == 0.0


def test_a_curve_that_promises_too_much_speed_per_watt_holds_gpus_unless_learned() -> None:
    """What it holds too many makes requests good here, where every GPU is capped: it is no fleet that anybody chose."""
    told, _, _ = outcome(0.7, learn=False, tight=True)
    learned, _, _ = outcome(0.7, learn=True, tight=True)
    assert learned.gpu_hours < 0.95 * told.gpu_hours
    assert learned.serving_energy_joules < 0.95 * told.serving_energy_joules


def test_switched_off_nothing_is_learned_but_both_draws_are_shown() -> None:
    _, decode, _ = outcome(1.3, learn=False, tight=False)
    assert not decode.learned.estimates
    assert decode.measured_mw is not None
    assert decode.expected_mw is not None
    assert decode.expected_mw > 1.2 * decode.measured_mw
