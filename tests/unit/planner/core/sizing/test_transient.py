"""The queue that starts with a backlog, against closed forms and against a walk that is simulated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.forecast.blend import MEMORIES_S, Blend
from planner.core.sizing.late_prompts.transient import Outlook, beyond


def outlook(rates: list[float], *, backlog_ms: float = 0.0, span_ms: float = 7500.0) -> Outlook:
    return Outlook(rates, 100.0, 100.0, 1.0, 1.0, backlog_ms, serving=1.0, lead_ms=0.0, span_ms=span_ms)


@pytest.mark.parametrize(("drift", "variance", "level"), [(-0.2, 100.0, 500.0), (-0.5, 50.0, 100.0)])
def test_a_long_span_forgets_its_start(drift: float, variance: float, level: float) -> None:
    """Reflected Brownian motion ends up exponential with rate 2 |drift| / variance."""
    at_rest = math.exp(2.0 * drift * level / variance)
    for start in (0.0, 1000.0):
        assert beyond(level, start, drift, variance, 1e7) == pytest.approx(at_rest, rel=1e-6)


def test_the_transient_is_that_of_a_simulated_reflected_walk() -> None:
    rng = np.random.default_rng(3)
    drift, variance, start, level, span = 0.1, 40.0, 150.0, 400.0, 2000.0
    work = np.full(20_000, start)
    step = 4.0
    for _ in range(round(span / step)):
        work = np.maximum(0.0, work + rng.normal(drift * step, math.sqrt(variance * step), work.shape))
    assert beyond(level, start, drift, variance, span) == pytest.approx(float((work > level).mean()), abs=0.02)


def test_overload_is_late_sooner_or_later_and_a_backlog_at_once() -> None:
    assert outlook([30.0], span_ms=60_000.0).late_share(2.0, 1.0, 1000.0) > 0.99
    calm = outlook([5.0])
    assert calm.late_share(2.0, 1.0, 1000.0) < 0.001
    assert outlook([5.0], backlog_ms=60_000.0).late_share(2.0, 1.0, 1000.0) > 0.99


outlooks = st.builds(
    Outlook,
    rates=st.lists(st.floats(0.01, 500.0), min_size=1, max_size=8),
    own_ms=st.floats(1.0, 500.0),
    cost_ms=st.floats(1.0, 500.0),
    cs2=st.floats(0.1, 10.0),
    ca2=st.floats(0.1, 10.0),
    backlog_ms=st.floats(0.0, 1e5),
    serving=st.floats(0.0, 50.0),
    lead_ms=st.sampled_from([0.0, 60_000.0]),
    span_ms=st.sampled_from([7500.0, 45_000.0]),
)


@settings(max_examples=200, deadline=None)
@given(outlooks, st.floats(1.3, 20.0), st.sampled_from([0.2, 0.05, 0.01]))
def test_the_least_count_is_the_least(one: Outlook, slack: float, share: float) -> None:
    target_ms = one.own_ms * slack
    counts = np.arange(0.0, 400.0)
    speed = one.required_speed(counts, target_ms, share)
    assert speed[0] == math.inf
    assert (np.diff(speed[1:]) <= 1e-9 * speed[1:-1]).all()
    enough = np.flatnonzero(speed <= 1.0 + 1e-9)
    if not len(enough):
        return
    least = int(enough[0])
    assert one.late_share(float(least), 1.0, target_ms) <= share
    assert least == 1 or one.late_share(float(least - 1), 1.0, target_ms) > share


def test_a_blend_follows_a_drift_and_averages_scatter() -> None:
    ramp = scatter = Blend()
    for i in range(200):
        ramp = ramp.observe(5.0 * i, 10.0 + i)
        scatter = scatter.observe(5.0 * i, 10.0 + 5.0 * (-1) ** i)
    assert ramp.mean(5.0) == pytest.approx(209.0, abs=3.0)
    assert scatter.mean(5.0) == pytest.approx(10.0, abs=0.6)
    assert len(ramp.losses) == len(MEMORIES_S)
