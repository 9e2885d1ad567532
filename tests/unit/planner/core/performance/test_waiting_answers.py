"""Answers that wait for a place in decode are not taken for slow engines; engines that are slow are still found out.

A decode pool as a fluid, second by second: sequences that find no place wait, and some engines count that as ITL.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.performance import observed_ratio
from planner.core.performance.engine_model import engine
from planner.core.performance.observed_ratio import FASTEST, SLOWEST, SLOWEST_LATE, Ratio
from planner.domain.config import ScalingRules
from planner.domain.observation import DeploymentObservation, PoolObservation
from planner.domain.pool import Replicas
from planner.domain.reading import Sample
from tests.unit.planner.core.small_site import DECODE, PREFILL, PROFILE, D, deployment, planner, pool, traffic
from tests.unit.planner.core.test_step import Drive

ISL, TARGET_MS, TICK_S, START_TICKS = 3000.0, 50.0, 30, 2
Arrivals = Callable[[int], tuple[float, float]]
"""Requests a second and tokens of an answer, by tick."""


@dataclass
class WaitingPool:
    """Decode engines ``slower`` than their profile by that factor, whose ITL counts waits or does not."""

    slower: float
    counts_waits: bool
    reports_running: bool = True
    sequences: float = 0.0
    counts: list[int] = field(default_factory=lambda: [1])
    factors: list[float] = field(default_factory=list)
    good: float = 0.0
    all: float = 0.0

    def run(self, arrivals: Arrivals, ticks: int) -> WaitingPool:
        pools = {PREFILL: pool(PREFILL), DECODE: pool(DECODE, scale_down=ScalingRules(stabilization_window_s=300.0))}
        drive = Drive(planner(deployment(pools, itl_ms=TARGET_MS)))
        for tick in range(ticks):
            serving = min(self.counts[-START_TICKS:])
            plan = drive(self._tick(serving, *arrivals(tick))).deployments[D]
            self.counts.append(plan.pools[DECODE].granted)
            self.factors.append(plan.corrections["decode"])
        return self

    def _tick(self, count: int, rate: float, osl: float) -> DeploymentObservation:
        model = engine(PROFILE).decode
        assert model is not None
        limit, tokens, present = model.batch_limit(ISL + osl / 2) * count, 0.0, 0.0
        for _ in range(TICK_S):
            self.sequences += rate
            running = min(self.sequences, limit)
            made = 1000.0 * running / (self.slower * model.itl_ms(max(1.0, running / count), ISL + osl / 2))
            waits = self.sequences - running
            self.all += rate
            self.good += rate * (self.slower * model.itl_ms(running / count, ISL) <= TARGET_MS) * (waits < 1.0)
            tokens, present = tokens + made, present + (self.sequences if self.counts_waits else running)
            self.sequences = max(0.0, self.sequences - made / osl)
        running = min(self.sequences, limit)
        seen = PoolObservation(Replicas(count), queued_requests=Sample(self.sequences - running))
        if self.reports_running:
            seen = PoolObservation(
                Replicas(count), queued_requests=seen.queued_requests, running_requests=Sample(running)
            )
        readings = {"itl_ms": Sample(1000.0 * present / tokens), "ttft_ms": Sample(100.0)}
        shown = traffic(rate, ISL, osl, TICK_S, **readings)
        return DeploymentObservation(
            **{name: getattr(shown, name) for name in shown.__dataclass_fields__ if name != "pools"},
            pools={PREFILL: PoolObservation(Replicas(1)), DECODE: seen},
        )


def burst(tick: int) -> tuple[float, float]:
    """For two minutes five times as many answers, each of 1,000 tokens."""
    return (60.0, 1000.0) if 10 <= tick < 14 else (12.0, 150.0)


def generated(seed: int) -> Arrivals:
    """A swing with scatter, of rate and lengths."""
    chance = random.Random(seed)
    rows = [(chance.uniform(8.0, 14.0), chance.uniform(150.0, 300.0)) for _ in range(200)]
    return lambda tick: rows[tick]


def test_waits_that_an_engine_counts_into_its_itl_teach_nothing() -> None:
    """The engines are as profiled, and the pool runs what it runs where ITL does not count waits."""
    found = WaitingPool(1.0, counts_waits=True).run(burst, 40)
    assert max(found.factors) < 1.5  # 3.2 by Little's law alone
    assert found.counts == WaitingPool(1.0, counts_waits=False).run(burst, 40).counts


@pytest.mark.parametrize("seed", [5, 6])
@pytest.mark.parametrize("counts_waits", [True, False])
@pytest.mark.parametrize("slower", [2.0, 3.0])
def test_slow_engines_are_found_out_and_no_fewer_answers_are_good(slower: float, counts_waits: bool, seed: int) -> None:
    """As where nothing is known of the sequences that run, so that Little's law alone teaches."""
    found = WaitingPool(slower, counts_waits).run(generated(seed), 60)
    blind = WaitingPool(slower, counts_waits, reports_running=False).run(generated(seed), 60)
    assert found.factors[-1] > 0.8 * slower
    assert found.good >= blind.good


def test_a_factor_above_the_usual_bound_returns_to_it_as_soon_as_it_is_not_observed() -> None:
    factor = 7.0
    for _ in range(10):
        factor = observed_ratio.learned(factor, None)
    assert SLOWEST < factor < SLOWEST + 0.5
    for _ in range(100):
        factor = observed_ratio.learned(factor, None)
    assert factor == pytest.approx(SLOWEST, abs=1e-6)
    assert observed_ratio.learned(SLOWEST, None) == pytest.approx(SLOWEST - 0.015)


RATIOS = st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 20.0)).map(lambda pair: Ratio(min(pair), max(pair)))


@given(st.floats(FASTEST, SLOWEST_LATE), RATIOS, st.booleans(), st.floats(1.0, 300.0))
def test_a_factor_moves_no_further_than_the_range_proves(
    factor: float, ratio: Ratio, late: bool, interval_s: float
) -> None:
    after = observed_ratio.learned(factor, observed_ratio.nearest(factor, ratio), interval_s, late=late)
    assert FASTEST <= after <= SLOWEST_LATE
    assert after <= max(factor, ratio.low) + 1e-9  # up only as far as the engines are surely slow
    assert after >= min(factor, max(FASTEST, ratio.high), SLOWEST) - 1e-9  # down as far as they are surely fast
    if ratio.low <= factor <= min(ratio.high, SLOWEST):
        assert after == pytest.approx(factor)


@given(st.floats(FASTEST, SLOWEST_LATE), RATIOS, st.floats(0.0, 5.0))
def test_a_wider_range_proves_no_more(factor: float, ratio: Ratio, by: float) -> None:
    wider = Ratio(ratio.low - by, ratio.high + by)
    assert observed_ratio.nearest(factor, wider) <= max(min(factor, SLOWEST), observed_ratio.nearest(factor, ratio))


@given(st.floats(0.0, 10.0), st.floats(0.0, 300.0), st.floats(0.0, 300.0), st.floats(1.0, 1e5))
def test_sequences_that_run_can_only_excuse(high: float, running: float, more: float, steps_per_s: float) -> None:
    model = engine(PROFILE).decode
    assert model is not None
    fewer, many = (
        observed_ratio.itl_range(high, model, count, steps_per_s, ISL) for count in (running, running + more)
    )
    assert fewer.high == many.high == high
    assert fewer.low <= many.low <= high
