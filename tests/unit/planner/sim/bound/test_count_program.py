"""The program finds what trying every plan finds, beats every static fleet, and charges each start."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.sim.bound.count_program import BoundWorld, Planned, PlanStep, evaluate, follow, solve
from planner.sim.bound.phase_table import PhaseTable

EVERY_S, STARTUP_S = 10.0, 25.0


def table(seed: int, intervals: int, counts: int, caps: int, levels: int, *, whole: bool) -> PhaseTable:
    """Random outcomes; with ``whole`` what waits at an end is exactly at a level."""
    rng = np.random.default_rng(seed)
    shape = (intervals, counts, caps, levels)
    after = rng.uniform(0.0, levels - 1.0, shape)
    return PhaseTable(
        share=rng.uniform(0.2, 1.0, shape),
        joules=rng.uniform(1e3, 5e3, shape),
        after=np.round(after) if whole else after,
        caps_mw=tuple(300_000 + 200_000 * number for number in range(caps)),
        gpus_per_replica=1,
        startup_s=STARTUP_S,
        starting_mw=200_000,
    )


def world(seed: int = 0, *, whole: bool = True, intervals: int = 3, by_joules: bool = True) -> BoundWorld:
    requests = np.random.default_rng(seed + 1).integers(0, 50, intervals).astype(float)
    return BoundWorld(
        table(seed, intervals, 2, 2, 3, whole=whole),
        table(seed + 7, intervals, 2, 2, 1, whole=True),
        requests,
        EVERY_S,
        gpus=4,
        idle_mw=75_000,
        by_joules=by_joules,
    )


def score(chosen: BoundWorld, planned: Planned, price: float) -> float:
    return planned.cost + price * (float(chosen.requests.sum()) - planned.good)


def every_plan(chosen: BoundWorld) -> list[list[PlanStep]]:
    one = [PlanStep(*step) for step in product((1, 2), (1, 2), (0, 1), (0, 1))]
    return [list(steps) for steps in product(one, repeat=chosen.intervals)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), price=st.sampled_from([0.0, 30.0, 1000.0]))
def test_a_tiny_world_is_solved_as_by_trying_every_plan(seed: int, price: float) -> None:
    chosen = world(seed, intervals=2)
    solved = solve(chosen, price)
    best = min(score(chosen, evaluate(chosen, plan), price) for plan in every_plan(chosen))
    assert solved.value == pytest.approx(best)
    assert score(chosen, follow(chosen, solved), price) == pytest.approx(best)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), price=st.floats(0.0, 1e4), joules=st.booleans())
def test_no_fixed_fleet_is_better_than_the_program(seed: int, price: float, joules: bool) -> None:
    chosen = world(seed, whole=False, intervals=8, by_joules=joules)
    value = solve(chosen, price).value
    for step in product((1, 2), (1, 2), (0, 1), (0, 1)):
        fixed = evaluate(chosen, [PlanStep(*step)] * chosen.intervals)
        assert value <= score(chosen, fixed, price) * (1 + 1e-9)


def test_a_worker_more_costs_its_start() -> None:
    chosen = world(by_joules=False)
    flat, up = (evaluate(chosen, [PlanStep(1, 1, 0, 0), PlanStep(n, 1, 0, 0), PlanStep(n, 1, 0, 0)]) for n in (1, 2))
    assert up.cost - flat.cost == pytest.approx(2 * EVERY_S + STARTUP_S)


def within(chosen: BoundWorld, watts: float) -> BoundWorld:
    return replace(chosen, budget_mw=np.full(chosen.intervals, watts * 1000.0))


def starts(plan: Planned) -> list[int]:
    pairs = zip(plan.steps, plan.steps[1:], strict=False)
    return [max(0, b.prefill - a.prefill) + max(0, b.decode - a.decode) for a, b in pairs]


def drawn(chosen: BoundWorld, plan: Planned) -> list[float]:
    """Watts by interval: caps of what serves, starts for the next interval, and idle GPUs."""
    watts = []
    for step, starting in zip(plan.steps, [*starts(plan), 0], strict=True):
        caps = (
            step.prefill * chosen.prefill.caps_mw[step.prefill_cap]
            + step.decode * chosen.decode.caps_mw[step.decode_cap]
        )
        idle = chosen.gpus - step.prefill - step.decode - starting
        assert idle >= 0
        watts.append((caps + 200_000 * starting + idle * chosen.idle_mw) / 1000)
    return watts


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000), watts=st.sampled_from([900.0, 1200.0, 1500.0, 2000.0]), gpus=st.sampled_from([3, 4])
)
def test_under_a_budget_a_start_holds_gpus_and_watts_before_it_serves(seed: int, watts: float, gpus: int) -> None:
    chosen = replace(within(world(seed, intervals=2), watts), gpus=gpus)
    plan = follow(chosen, solve(chosen, 1e5))
    assert max(drawn(chosen, plan)) <= watts


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), watts=st.sampled_from([900.0, 1200.0, 1500.0]))
def test_under_a_budget_a_tiny_world_is_solved_as_by_trying_every_plan_that_fits(seed: int, watts: float) -> None:
    chosen = within(world(seed, intervals=2), watts)
    price = 1e5
    best = min(
        score(chosen, found, price)
        for found in (evaluate(chosen, plan) for plan in every_plan(chosen))
        if max(drawn_or_more(chosen, found)) <= watts
    )
    assert solve(chosen, price).value == pytest.approx(best)


def drawn_or_more(chosen: BoundWorld, plan: Planned) -> list[float]:
    """As ``drawn``; infinite where a start has no GPU."""
    held = [step.prefill + step.decode for step in plan.steps]
    if any(n + m > chosen.gpus for n, m in zip(held, [*starts(plan), 0], strict=True)):
        return [float("inf")]
    return drawn(chosen, plan)
