"""The bounds of looking ahead: who knows everything plans the least, and who knows less nothing better."""

from __future__ import annotations

import pytest

from planner.sim.bound.count_program import follow, solve
from tests.benchmarks.future.known_future import LENGTH, TrueRate, plan_ahead
from tests.unit.planner.sim.bound.test_count_program import score, world


@pytest.mark.parametrize("seed", range(4))
def test_knowing_more_of_the_future_never_costs_more_than_knowing_all_of_it_saves(seed: int) -> None:
    chosen, price = world(seed, intervals=6), 3.0
    least = score(chosen, follow(chosen, solve(chosen, price)), price)
    assert score(chosen, plan_ahead(chosen, price, 6), price) == pytest.approx(least)
    assert all(score(chosen, plan_ahead(chosen, price, ahead), price) >= least - 1e-9 for ahead in (1, 2, 3))


def test_the_true_rate_is_the_highest_of_a_span_until_the_horizon_and_lengths_are_learned() -> None:
    assert TrueRate(lambda t_s: t_s / 10.0).observe(30.0, 1.0).mean(60.0) == pytest.approx(7.5)
    assert TrueRate(lambda t_s: 12.0 - t_s / 10.0).observe(30.0, 1.0).mean(60.0) == pytest.approx(7.5)
    assert TrueRate(lambda _: 0.0).observe(0.0, 20.0 * LENGTH).mean(60.0) == 20.0 * LENGTH
