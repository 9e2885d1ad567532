"""The learner finds P_u through noise, lag, caps that bind and idle engines, and never leaves its bounds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.adapters.power_priors import Phase, curve, gpu
from planner.core.power.p_u_estimator import (
    BUSY,
    HALF_LIFE_S,
    HIGHEST,
    LOWEST,
    SETTLED_S,
    LearnedPower,
    Reading,
    batch_bucket,
)

PRIOR = curve(gpu("h100"), Phase.DECODE_DENSE)
KEY = 5
"""Batch bucket."""


def feed(true_mw: float, caps: list[int], readings: int, *, seed: int, noise: float = 0.03) -> LearnedPower:
    """Busy readings every 5 s, each at a cap drawn from ``caps``: the lower of cap and what the phase uses."""
    rng, state = random.Random(seed), LearnedPower()
    for i in range(readings):
        cap = rng.choice(caps)
        draw = min(cap, round(true_mw * rng.gauss(1.0, noise)))
        state = state.observe(KEY, PRIOR, Reading(draw, cap, 1.0, 60.0), i * 5.0)
    return state


@settings(max_examples=60, deadline=None)
@given(st.floats(0.6, 1.25), st.integers(0, 10_000))
def test_p_u_is_found_within_four_percent(share: float, seed: int) -> None:
    true = share * PRIOR.p_u_mw
    state = feed(true, [PRIOR.max_mw], 200, seed=seed)
    assert state.p_u_mw(KEY, PRIOR) == pytest.approx(true, rel=0.04)


@settings(max_examples=60, deadline=None)
@given(st.floats(1.25, 1.36), st.integers(0, 10_000))
def test_p_u_near_the_cards_limit_is_found_from_above(share: float, seed: int) -> None:
    """Noise that reaches the limit counts as a bound, so that the estimate settles between the truth and the limit."""
    true = share * PRIOR.p_u_mw
    state = feed(true, [PRIOR.max_mw], 200, seed=seed)
    assert true * 0.96 <= state.p_u_mw(KEY, PRIOR) <= PRIOR.max_mw


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(350_000, 480_000))
def test_a_cap_that_binds_never_teaches_that_less_is_enough(seed: int, cap: int) -> None:
    state = feed(1.2 * PRIOR.p_u_mw, [cap], 200, seed=seed)
    assert state.p_u_mw(KEY, PRIOR) == PRIOR.p_u_mw
    assert state.estimates[KEY].samples == 0
    assert state.estimates[KEY].bounds == 200


def test_a_bound_above_the_estimate_raises_it() -> None:
    cap = PRIOR.max_mw - 50_000
    state = feed(PRIOR.max_mw, [cap], 300, seed=1)
    assert state.p_u_mw(KEY, PRIOR) == pytest.approx(cap, rel=0.04)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2_000_000), st.integers(0, 700_000), st.floats(0, 1), st.floats(0, 100), st.floats(0, 9_999)
        ),
        max_size=60,
    )
)
def test_whatever_is_read_the_estimate_stays_in_bounds(rows: list[tuple[int, int, float, float, float]]) -> None:
    state = LearnedPower()
    for draw, cap, busy, since, at in rows:
        state = state.observe(KEY, PRIOR, Reading(draw, cap, busy, since), at)
        law = state.curve(KEY, PRIOR)
        assert LOWEST * PRIOR.p_u_mw <= law.p_u_mw <= min(HIGHEST * PRIOR.p_u_mw, PRIOR.max_mw)
        assert 0 < law.p_s_mw < law.p_u_mw


@settings(max_examples=40, deadline=None)
@given(st.floats(0.6, 1.3), st.integers(0, 10_000))
def test_caps_that_follow_the_estimate_still_find_the_truth(share: float, seed: int) -> None:
    true = share * PRIOR.p_u_mw
    rng, state = random.Random(seed), LearnedPower()
    for i in range(300):
        cap = -(-state.p_u_mw(KEY, PRIOR) // 5_000) * 5_000
        draw = min(cap, round(true * rng.gauss(1.0, 0.02)))
        state = state.observe(KEY, PRIOR, Reading(draw, cap, 1.0, 60.0), i * 30.0)
    assert 0.98 * true <= state.p_u_mw(KEY, PRIOR) <= 1.1 * true


def test_one_wild_reading_in_ten_moves_little() -> None:
    rng, state = random.Random(5), LearnedPower()
    true = 0.9 * PRIOR.p_u_mw
    for i in range(300):
        draw = rng.choice([130_000, 690_000]) if i % 10 == 9 else round(true * rng.gauss(1.0, 0.02))
        state = state.observe(KEY, PRIOR, Reading(draw, PRIOR.max_mw, 1.0, 60.0), i * 5.0)
    assert state.p_u_mw(KEY, PRIOR) == pytest.approx(true, rel=0.04)


@pytest.mark.parametrize(
    "reading",
    [
        Reading(300_000, 700_000, BUSY - 0.01, 60.0),
        Reading(300_000, 700_000, 1.0, SETTLED_S - 0.1),
        Reading(PRIOR.idle_mw, 700_000, 1.0, 60.0),
        Reading(2_000_000, 700_000, 1.0, 60.0),
        Reading(300_000, 0, 1.0, 60.0),
    ],
)
def test_readings_without_information_change_nothing(reading: Reading) -> None:
    state = LearnedPower()
    assert state.observe(KEY, PRIOR, reading, 1.0) is state


def test_a_changed_world_is_believed_after_a_while() -> None:
    state = feed(0.8 * PRIOR.p_u_mw, [PRIOR.max_mw], 200, seed=2)
    later = 200 * 5.0 + HALF_LIFE_S
    rng, true = random.Random(3), 1.2 * PRIOR.p_u_mw
    for i in range(300):
        draw = round(true * rng.gauss(1.0, 0.03))
        state = state.observe(KEY, PRIOR, Reading(draw, PRIOR.max_mw, 1.0, 60.0), later + i * 5.0)
    assert state.p_u_mw(KEY, PRIOR) == pytest.approx(true, rel=0.08)


def test_batches_are_learned_apart_and_a_new_one_starts_from_its_neighbour() -> None:
    state = feed(0.7 * PRIOR.p_u_mw, [PRIOR.max_mw], 100, seed=4)
    assert state.p_u_mw(0, PRIOR) == state.p_u_mw(KEY, PRIOR) < 0.75 * PRIOR.p_u_mw
    later = state.observe(KEY + 2, PRIOR, Reading(PRIOR.p_u_mw, PRIOR.max_mw, 1.0, 60.0), 500.0)
    assert later.p_u_mw(KEY, PRIOR) == state.p_u_mw(KEY, PRIOR) < later.p_u_mw(KEY + 2, PRIOR)
    assert later.p_u_mw(KEY + 1, PRIOR) == later.p_u_mw(KEY + 2, PRIOR), "of two equally near the one that draws more"


@settings(max_examples=60, deadline=None)
@given(st.floats(0.0, BUSY - 0.01), st.lists(st.integers(130_000, 690_000), min_size=1, max_size=40))
def test_an_engine_with_pauses_never_teaches_that_less_is_enough(busy: float, draws: list[int]) -> None:
    state, before = LearnedPower(), PRIOR.p_u_mw
    for i, draw in enumerate(draws):
        state = state.observe(KEY, PRIOR, Reading(draw, PRIOR.max_mw, busy, 60.0), i * 5.0)
        assert state.p_u_mw(KEY, PRIOR) >= before
        before = state.p_u_mw(KEY, PRIOR)
    assert before <= max(PRIOR.p_u_mw, *draws) + 1


def test_the_middle_of_five_weighs_as_five() -> None:
    draw = round(0.8 * PRIOR.p_u_mw)
    once = LearnedPower().observe(KEY, PRIOR, Reading(draw, PRIOR.max_mw, 1.0, 60.0), 0.0)
    five = LearnedPower().observe(KEY, PRIOR, Reading(draw, PRIOR.max_mw, 1.0, 60.0, gpus=5), 0.0)
    assert PRIOR.p_u_mw - five.p_u_mw(KEY, PRIOR) > 3 * (PRIOR.p_u_mw - once.p_u_mw(KEY, PRIOR))


def test_batches_share_a_bucket_with_their_neighbours() -> None:
    assert [batch_bucket(b) for b in (0, 1, 2, 4, 5, 8, 32, 33)] == [0, 0, 1, 2, 2, 3, 5, 5]
