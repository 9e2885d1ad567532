"""A high ITL counts, even with a frontend's metrics alone: decode grows until answers are in time."""

from __future__ import annotations

import pytest

from planner.core.performance import observed_ratio
from planner.core.performance.engine_model import engine
from planner.domain.config import PlannerConfig, ScalingRules
from planner.domain.reading import Sample
from tests.unit.planner.core.small_site import DECODE, PREFILL, PROFILE, D, deployment, planner, pool, traffic
from tests.unit.planner.core.test_step import Drive

AT_ONCE = ScalingRules(stabilization_window_s=0.0)
TARGET_MS = 50.0


def one_decode() -> PlannerConfig:
    pools = {PREFILL: pool(PREFILL), DECODE: pool(DECODE, scale_down=AT_ONCE)}
    return planner(deployment(pools, itl_ms=TARGET_MS))


def decode_after(itl_ms: float, ticks: int, rate: float = 12.0) -> list[int]:
    """Granted decode replicas at each tick, while the observed ITL stays what it is."""
    drive, found = Drive(one_decode()), []
    for _ in range(ticks):
        seen = traffic(rate, itl_ms=Sample(itl_ms), ttft_ms=Sample(100.0), request_duration_s=Sample(itl_ms * 0.15))
        found.append(drive(seen).deployments[D].pools[DECODE].granted)
    return found


def test_at_three_times_the_target_decode_grows() -> None:
    """By Little's law 270 sequences are in flight, more than the engine holds: no ratio was learned from that."""
    grown = decode_after(3.0 * TARGET_MS, 12)
    assert grown[0] == 1
    assert grown[-1] > 1
    assert grown == sorted(grown)


@pytest.mark.parametrize("itl_ms", [60.0, 100.0, 120.0])
def test_at_less_it_grows_too(itl_ms: float) -> None:
    assert decode_after(itl_ms, 12)[-1] > 1


def test_an_itl_in_time_adds_nothing() -> None:
    assert decode_after(10.0, 12)[-1] == 1


def test_a_grown_pool_whose_answers_are_in_time_again_keeps_its_replicas() -> None:
    """The engine is 4.4 times slower than its profile; what was learned of it while late is not forgotten in time."""
    model = engine(PROFILE).decode
    assert model is not None
    drive, counts = Drive(one_decode()), [1]
    for _ in range(60):
        step = 5.0
        for _ in range(200):  # The batch that this many replicas have at the slow engine's own pace.
            batch = min(12.0 * 150 * step / 1000 / counts[-1], model.batch_limit(3075.0))
            step = 4.4 * model.itl_ms(max(1.0, batch), 3075.0)
        plan = drive(traffic(12.0, itl_ms=Sample(step), ttft_ms=Sample(100.0)))
        counts.append(plan.deployments[D].pools[DECODE].granted)
    assert counts[-1] > 1
    assert step <= TARGET_MS
    assert len(set(counts[-30:])) == 1


def test_a_full_engine_is_believed_to_be_slower_and_never_to_be_faster() -> None:
    model = engine(PROFILE).decode
    assert model is not None
    full = model.itl_ms(model.batch_limit(3075.0), 3075.0)
    assert observed_ratio.itl_ratio(model, 3 * full, 1e6, 3075.0) == pytest.approx(3.0)
    assert observed_ratio.itl_ratio(model, 0.8 * full, 1e6, 3075.0) is None


def test_in_time_a_factor_stays_within_its_usual_bounds() -> None:
    factor = 1.0
    for _ in range(200):
        factor = observed_ratio.learned(factor, 1e9)
    assert factor == pytest.approx(observed_ratio.SLOWEST)
    late = factor
    for _ in range(200):
        late = observed_ratio.learned(late, 1e9, late=True)
    assert late == pytest.approx(observed_ratio.SLOWEST_LATE)
    assert observed_ratio.learned(5.0, 5.0) == 5.0
    assert observed_ratio.learned(5.0, 1.0) < 5.0
