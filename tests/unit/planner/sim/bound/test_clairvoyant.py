"""The model agrees with the plant, the plan is carried out with its starts, and everybody's regret is to one bound."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest

from planner.domain.pool import Role
from planner.sim.bound.clairvoyant_bound import Bound, BoundAim, bound
from planner.sim.bound.count_program import PlanStep, evaluate
from planner.sim.bound.decode_table import outcome as decoded
from planner.sim.bound.world_model import model
from planner.sim.capacity.needed_workers import needed
from planner.sim.cluster.engine_timing import engine_law
from planner.sim.evaluation.regret import regret
from planner.sim.evaluation.scores import Scores, score
from planner.sim.evaluation.simulation import simulate
from planner.sim.policies.catalogue import make
from planner.sim.policies.clairvoyant import Clairvoyant
from planner.sim.workload.scenario import DECODE, PREFILL, BudgetSteps
from tests.unit.planner.sim.small_scenario import STARTUP_S, scenario


@cache
def measured(name: str) -> Scores:
    return score(simulate(scenario(), make(name)))


@cache
def planned(share: float, aim: BoundAim = BoundAim.HOURS) -> Bound:
    return bound(scenario(), share, aim)


@pytest.mark.parametrize(("prefill", "decode"), [(3, 2), (4, 2), (5, 2)])
def test_the_model_says_of_fixed_fleets_what_the_plant_measures(prefill: int, decode: int) -> None:
    world = model(scenario(), by_joules=True)
    fleet = evaluate(
        world,
        [PlanStep(prefill, decode, len(world.prefill.caps_mw) - 1, len(world.decode.caps_mw) - 1)] * world.intervals,
    )
    found = measured(f"static:{prefill}p{decode}d")
    assert fleet.good / world.requests.sum() == pytest.approx(found.good_share, abs=0.02)
    assert fleet.cost == pytest.approx(found.serving_energy_joules, rel=0.04)


def test_of_a_fleet_that_is_overloaded_for_long_the_model_expects_too_much_and_not_too_little() -> None:
    world = model(scenario())
    fleet = evaluate(world, [PlanStep(4, 1, 0, 0)] * world.intervals)
    assert 0.5 > fleet.good / world.requests.sum() > measured("static:4p1d").good_share


@pytest.mark.parametrize(
    ("name", "aim"), [("clairvoyant:0.97", BoundAim.HOURS), ("clairvoyant:0.97+joules", BoundAim.JOULES)]
)
def test_the_plan_makes_in_the_plant_what_the_model_expects(name: str, aim: BoundAim) -> None:
    found, plan = measured(name), planned(0.97, aim)
    cost = found.gpu_hours if aim is BoundAim.HOURS else found.serving_energy_joules / 1e6
    assert plan.share >= 0.97
    assert found.good_share == pytest.approx(plan.share, abs=0.03)
    assert cost == pytest.approx(plan.cost, rel=0.05)


def test_the_bound_is_below_the_plan_and_every_fixed_fleet() -> None:
    plan = planned(0.97)
    assert plan.least_cost(plan.share) <= plan.cost * (1 + 1e-9)
    world = model(scenario())
    for prefill, decode in itertools.product(range(1, world.prefill.counts + 1), range(1, world.decode.counts + 1)):
        fleet = evaluate(world, [PlanStep(prefill, decode, 0, 0)] * world.intervals)
        assert plan.least_cost(fleet.good / plan.requests) <= fleet.cost / 3600.0 * (1 + 1e-9)
    assert plan.least_cost(0.9) < plan.least_cost(0.97) < plan.least_cost(0.99)


def test_workers_are_ordered_a_start_before_the_plan_needs_them() -> None:
    chosen = scenario()
    policy = make("clairvoyant:0.97")
    assert isinstance(policy, Clairvoyant)
    policy.start_replicas(chosen)
    steps = planned(0.97).plan.steps
    rises = [i for i in range(1, len(steps)) if steps[i].prefill > steps[i - 1].prefill]
    assert rises
    for number in rises:
        serves_s = number * 10.0
        assert policy.held(chosen, serves_s - STARTUP_S)[PREFILL] >= steps[number].prefill
    for number, step in enumerate(steps):
        held = policy.held(chosen, number * 10.0)
        assert held[PREFILL] >= step.prefill
        assert held[DECODE] >= step.decode


def test_a_budget_is_kept_and_more_watts_make_more_good() -> None:
    shares = []
    for watts in (3_000.0, 3_400.0):
        chosen = scenario(budget=BudgetSteps(((0.0, int(watts * 1000)),)))
        ended = simulate(chosen, make("clairvoyant"))
        scores, found = score(ended), ended.run.bound
        assert scores.violation_watt_seconds == 0
        assert found is not None
        assert found.plan.good <= found.most_good * (1 + 1e-9)
        assert scores.good_share == pytest.approx(found.share, abs=0.02)
        regretted = regret(scores, found, budget=True)
        assert regretted is not None
        assert regretted.times >= 0.97
        shares.append(scores.good_share)
    assert shares[0] < shares[1]


def test_a_budget_below_the_lowest_caps_is_named() -> None:
    with pytest.raises(ValueError, match="does not feed a worker of each pool"):
        bound(scenario(budget=BudgetSteps(((0.0, 900_000),))), 0.97)


def test_everybody_s_regret_is_to_the_bound_at_their_own_share() -> None:
    found = regret(measured("static:5p2d"), planned(0.97), budget=False)
    own = regret(measured("clairvoyant:0.97"), planned(0.97), budget=False)
    assert found is not None
    assert own is not None
    assert found.times > own.times
    assert own.times == pytest.approx(1.0, abs=0.1)
    assert "GPU-h of the bound" in found.sentence


def test_an_answer_alone_has_the_pace_of_a_batch_of_one() -> None:
    chosen = scenario()
    law = engine_law(chosen.profile).decode
    assert law is not None
    alone = decoded(
        np.array([1.0]), np.array([500.0]), np.array([100.0]), 1, 700_000, law, chosen.pools[1].curve, 0.025
    )
    assert alone.itl_s[0] == pytest.approx(law.iteration_s(1.0, 550.0), rel=0.02)


def test_a_size_search_begins_where_the_work_needs_it() -> None:
    chosen = scenario()
    work_s = sum(0.0001 * isl for isl in chosen.trace.isl)
    assert float(np.mean(needed(chosen)[Role.PREFILL])) >= 0.9 * work_s / chosen.end_s
