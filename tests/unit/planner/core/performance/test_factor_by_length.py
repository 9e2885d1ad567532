"""The factor of prefill belongs to the prompts that it was observed at: long ones say little of short ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.performance import factor_by_length
from planner.core.performance.engine_model import engine
from planner.core.performance.factor_by_length import LIKE, MOST
from planner.domain.observation import PoolObservation
from planner.domain.pool import Replicas
from planner.domain.reading import Sample
from tests.unit.planner.core.small_site import DECODE, PREFILL, PROFILE, D, planner, traffic
from tests.unit.planner.core.test_step import Drive

LONG, SHORT, FIXED_MS = 4000.0, 400.0, 20.0
"""Tokens of a prompt, and a time that the profile does not know: a third of a short prompt's, and hardly any of a long
one's."""


def factors(lengths: list[float]) -> list[float]:
    """The factor of prefill at each tick of prompts of these lengths, which take ``FIXED_MS`` more than profiled."""
    drive, model, found = Drive(planner()), engine(PROFILE).prefill, []
    assert model is not None
    for isl in lengths:
        pools = {name: PoolObservation(Replicas(4)) for name in (PREFILL, DECODE)}
        seen = replace(traffic(1.0, isl, ttft_ms=Sample(model.ttft_ms(isl) + FIXED_MS)), pools=pools)
        found.append(drive(seen).deployments[D].corrections["prefill"])
    return found


def test_what_short_prompts_taught_does_not_slow_long_ones_down() -> None:
    found = factors([LONG] * 20 + [SHORT] * 20 + [LONG] * 2 + [SHORT] * 2)
    assert found[39] > 1.5 * found[19], "a fixed time weighs more beside a short prompt"
    assert found[40] == pytest.approx(found[19], abs=0.01)
    assert found[42] == pytest.approx(found[39], abs=0.1)


def test_prompts_of_about_the_same_length_share_one_factor() -> None:
    mixed = factors([LONG, 1.3 * LONG, 0.8 * LONG, 1.2 * LONG] * 5)
    steady = factors([LONG] * 20)
    assert mixed[-1] == pytest.approx(steady[-1], abs=0.02)


def test_a_length_that_was_never_seen_begins_with_the_factor_in_force() -> None:
    known = factor_by_length.remembered((), LONG, 1.4)
    assert factor_by_length.at(known, LONG * LIKE * 1.01, 1.4) == 1.4


@given(st.lists(st.tuples(st.floats(1.0, 1e6), st.floats(0.5, 10.0)), max_size=30))
def test_few_lengths_are_remembered_and_the_newest_is(seen: list[tuple[float, float]]) -> None:
    known: factor_by_length.Known = ()
    for tokens, factor in seen:
        known = factor_by_length.remembered(known, tokens, factor)
        assert len(known) <= MOST
        assert factor_by_length.at(known, tokens, 0.0) == factor
