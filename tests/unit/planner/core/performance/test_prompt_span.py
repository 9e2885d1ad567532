"""The same prompts teach the same of prefill, however often there is a tick; a full queue teaches by what leaves it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.intake import initial_state
from planner.core.performance import prompt_span
from planner.core.performance.corrections import PREFILL as FACTOR
from planner.core.performance.engine_model import engine
from planner.core.performance.prompt_span import SPAN_S, PromptsSeen, Span
from planner.core.state import PlannerState
from planner.core.step import step
from planner.domain.observation import DeploymentObservation, Observation, PoolObservation
from planner.domain.pool import Replicas
from planner.domain.reading import NO_DATA, Reading, Sample
from tests.unit.planner.core.small_site import DECODE, PREFILL, PROFILE, D, deployment, planner

ISL = 1000.0
OWN_MS = 25.0
"""What the profile says of a prompt of that length alone."""
LOOK = planner(replace(deployment(), max_gpus=64))


def ticked(
    state: PlannerState, seen: DeploymentObservation, now_s: float, interval_s: float
) -> tuple[PlannerState, float]:
    config = replace(LOOK, interval_s=interval_s)
    state, _ = step(state, Observation({D: seen}), config, config.clock(now_s))
    return state, state.deployments[D].learned.corrections[FACTOR]


def grouped(seed: int) -> Iterator[tuple[int, float]]:
    """Prompts and the sum of their TTFT, second by second: single ones, and now and then eleven that end together."""
    rng = random.Random(seed)
    while True:
        singles = sum(rng.random() < 0.4 for _ in range(10))
        together = 11 if rng.random() < 0.1 else 0
        yield singles + together, OWN_MS * (singles + together * together)


def learned(interval_s: int, load: Iterator[tuple[int, float]], for_s: int = 3600) -> list[float]:
    """The correction of prefill at each tick of engines that are just as in their profile."""
    state, found = initial_state(LOOK, 1, 0.0, (), ()), []
    for now_s in range(interval_s, for_s, interval_s):
        seconds = list(itertools.islice(load, interval_s))
        requests, took_ms = sum(n for n, _ in seconds), sum(ms for _, ms in seconds)
        ttft: Reading = Sample(took_ms / requests) if requests else NO_DATA
        isl: Reading = Sample(ISL) if requests else NO_DATA
        osl: Reading = Sample(50.0) if requests else NO_DATA
        seen = DeploymentObservation(
            float(interval_s), Sample(float(requests)), isl, osl, ttft_ms=ttft, isl_cv2=Sample(0.0),
            pools={PREFILL: PoolObservation(Replicas(2)), DECODE: PoolObservation(Replicas(1))},
        )  # fmt: skip
        state, factor = ticked(state, seen, float(now_s), float(interval_s))
        found.append(factor)
    return found


@pytest.mark.parametrize("interval_s", [5, 10])
def test_prompts_that_come_together_teach_the_same_at_any_tick(interval_s: int) -> None:
    """Learned from each tick on its own it was 1.66 at 5 s, 2.06 at 10 and 2.42 at 30 s."""
    often, seldom = (learned(tick_s, grouped(5)) for tick_s in (interval_s, 30))
    half = len(often) // 2, len(seldom) // 2
    means = [sum(course[start:]) / len(course[start:]) for course, start in zip((often, seldom), half, strict=True)]
    assert means[0] == pytest.approx(means[1], rel=0.03)


ticks = st.lists(
    st.tuples(st.integers(1, 40), st.floats(10.0, 8000.0), st.floats(0.0, 3.0), st.floats(5.0, 5000.0)),
    min_size=6,
    max_size=6,
)


@given(ticks)
def test_a_span_of_short_ticks_has_the_means_of_one_long_tick(seen: list[tuple[int, float, float, float]]) -> None:
    span: Span = ()
    for i, (requests, tokens, spread, ttft_ms) in enumerate(seen, 1):
        square = requests * tokens * tokens * (1.0 + spread)
        one = PromptsSeen(
            5.0 * i, 5.0, 0.5, 1.0, 1, 0.0, requests, requests * tokens, square, requests, requests * ttft_ms
        )
        span = prompt_span.extended(span, one)
    sums = [sum(one[i] for one in span) for i in range(6, 11)]
    assert prompt_span.means(span) == pytest.approx(
        prompt_span.means((PromptsSeen(30.0, 30.0, 0.5, 1.0, 1, 0.0, *sums),))
    )


def test_a_tick_as_long_as_a_span_stands_alone_and_one_without_prompts_counts_its_time() -> None:
    busy = PromptsSeen(5.0, 5.0, 1.0, 1.0, 1, 0.0, 10.0, 10.0 * ISL, 10.0 * ISL * ISL, 10.0, 250.0)
    quiet = PromptsSeen(10.0, 5.0, 1.0, 1.0, 1, 0.0)
    both = prompt_span.means(prompt_span.extended((busy,), quiet))
    assert both is not None
    assert (both.load.req_per_s, both.ttft_ms) == (1.0, 25.0)
    assert prompt_span.means((quiet,)) is None
    long = busy._replace(at_s=60.0, seconds=SPAN_S)
    assert prompt_span.extended((busy, quiet), long) == (long,)


def waiting(slower: float, interval_s: int, rate: float = 100.0, count: int = 2, for_s: int = 900) -> list[float]:
    """The correction while more prompts arrive than engines compute; TTFT is as long as the queue."""
    model = engine(PROFILE).prefill
    assert model is not None
    each_s = slower * model.cost_ms(ISL) / 1000.0
    state, found, queue = initial_state(LOOK, 1, 0.0, (), ()), [], 400.0
    for now_s in range(interval_s, for_s, interval_s):
        passed = count * interval_s / each_s
        arrive = rate * interval_s if queue < 4000.0 else passed
        queue = max(0.0, queue + arrive - passed)
        ttft = Sample(1000.0 * queue * each_s / count)
        seen = DeploymentObservation(
            float(interval_s), Sample(arrive), Sample(ISL), Sample(50.0), ttft_ms=ttft,
            pools={PREFILL: PoolObservation(Replicas(count), queued_requests=Sample(queue)),
                   DECODE: PoolObservation(Replicas(1))},
        )  # fmt: skip
        state, factor = ticked(state, seen, float(now_s), float(interval_s))
        found.append(factor)
    return found


@pytest.mark.parametrize("interval_s", [5, 30])
@pytest.mark.parametrize("slower", [1.5, 3.0])
def test_behind_a_queue_slow_engines_are_found_out_by_what_they_get_done(slower: float, interval_s: int) -> None:
    """A TTFT that is all wait says nothing of them: a third of the profile's speed was never learned."""
    assert waiting(slower, interval_s)[-1] == pytest.approx(slower, rel=0.05)


def test_behind_a_queue_engines_as_in_their_profile_teach_nothing() -> None:
    assert waiting(1.0, 30, rate=110.0) == pytest.approx([1.0] * 29)


@settings(max_examples=15)
@given(st.floats(0.4, 5.0), st.integers(1, 6))
def test_a_queue_never_teaches_more_than_how_slow_engines_are(slower: float, count: int) -> None:
    found = waiting(slower, 30, rate=220.0 * count, count=count, for_s=600)
    assert max(found) <= max(1.0, slower) + 1e-9
    assert min(found) == pytest.approx(1.0, abs=0.35)


def test_a_queue_that_engines_may_have_emptied_in_between_teaches_nothing() -> None:
    """Five wait at each tick, fewer than one batch of each of two engines: a tenth of their time is all they needed."""
    state = initial_state(LOOK, 1, 0.0, (), ())
    for tick in range(1, 11):
        seen = DeploymentObservation(
            30.0, Sample(300.0), Sample(ISL), Sample(50.0), ttft_ms=Sample(2000.0),
            pools={PREFILL: PoolObservation(Replicas(2), queued_requests=Sample(5.0)),
                   DECODE: PoolObservation(Replicas(1))},
        )  # fmt: skip
        state, factor = ticked(state, seen, 30.0 * tick, 30.0)
        assert factor == 1.0
