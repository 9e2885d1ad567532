"""Power in the plant: limits clamp and slow, draw follows with a lag, and energy is the integral of the draw."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.power.curve import speed
from planner.domain.power import PowerCurve
from planner.domain.request import Request
from planner.sim.cluster.sim_gpu import GpuCard, SimGpu, batch_share, capped_speed
from tests.unit.planner.sim.small_plants import DECODE_CURVE, PREFILL_CURVE, disaggregated, finish

ACTIONS = st.lists(
    st.tuples(st.floats(0.001, 3.0), st.sampled_from(["load", "limit"]), st.integers(60_000, 800_000)), max_size=20
)


@settings(max_examples=60, deadline=None)
@given(actions=ACTIONS)
def test_energy_is_the_integral_of_the_draw(actions: list[tuple[float, str, int]]) -> None:
    """Against a Riemann sum over steps of a millisecond, whatever the load and the limit do."""
    gpu, watched = SimGpu("a", "n", GpuCard()), SimGpu("b", "n", GpuCard())
    now_s, integral = 0.0, 0.0
    for wait_s, what, mw in actions:
        steps = max(1, round(wait_s / 0.001))
        for step in range(1, steps + 1):
            before = watched.draw_mw
            watched.advance(now_s + wait_s * step / steps)
            integral += (before + watched.draw_mw) / 2 * wait_s / steps
        now_s += wait_s
        for each in (gpu, watched):
            each.set_load(mw, now_s) if what == "load" else each.set_limit(mw, now_s)
    gpu.advance(now_s)
    watched.advance(now_s)
    assert gpu.energy_mj == pytest.approx(watched.energy_mj, rel=1e-6, abs=1.0)
    assert gpu.energy_mj == pytest.approx(integral, rel=1e-3, abs=500.0)


def test_the_draw_settles_at_the_limit_and_never_above_for_long() -> None:
    gpu = SimGpu("a", "n", GpuCard())
    gpu.set_load(650_000, 0.0)
    gpu.advance(5.0)
    assert gpu.draw_mw == pytest.approx(650_000, rel=1e-6)
    assert gpu.set_limit(300_000, 5.0) == 300_000
    gpu.advance(5.1)
    assert gpu.draw_mw > 300_000  # a lag, not a jump
    gpu.advance(7.0)
    assert gpu.draw_mw == pytest.approx(300_000, rel=1e-3)


def test_limits_are_clamped_to_what_the_card_takes() -> None:
    gpu = SimGpu("a", "n", GpuCard())
    assert gpu.set_limit(10_000, 0.0) == 200_000
    assert gpu.set_limit(9_000_000, 0.0) == 700_000


def test_a_rising_load_overshoots_its_limit_briefly() -> None:
    gpu = SimGpu("a", "n", GpuCard(lag_s=0.01))
    gpu.set_limit(300_000, 0.0)
    gpu.set_load(650_000, 0.0)
    gpu.advance(0.049)
    assert 300_000 < gpu.draw_mw <= 315_000
    gpu.advance(1.0)
    assert gpu.draw_mw == pytest.approx(300_000, rel=1e-4)


def test_speed_follows_the_law_and_scales_with_the_draw() -> None:
    assert capped_speed(PREFILL_CURVE, 616_000) == 1.0
    assert capped_speed(PREFILL_CURVE, 378_000) == pytest.approx(0.5**0.6)
    assert capped_speed(DECODE_CURVE, 0.95 * 511_000, batch_share(8)) == 1.0  # draws less than the limit
    assert [batch_share(n) for n in (0, 1, 256, 10_000)] == pytest.approx([0.0, 0.62, 1.0, 1.0], abs=0.01)


@pytest.mark.parametrize("curve", [PREFILL_CURVE, DECODE_CURVE])
@pytest.mark.parametrize("cap_mw", [200_000, 250_000, 300_000, 450_000, 700_000])
def test_speed_under_a_cap_is_that_of_the_planners_law_tail_included(curve: PowerCurve, cap_mw: int) -> None:
    assert capped_speed(curve, cap_mw) == speed(curve, cap_mw)


def test_a_capped_worker_is_slower_by_the_law_also_when_capped_in_the_middle() -> None:
    plant = disaggregated()
    plant.submit([Request(0.0, 10_000, 1)])
    plant.advance(0.5)
    prefill = next(r.gpu for r in plant.readings() if r.pool == "prefill")
    plant.set_cap(prefill, 378_000)
    finish(plant, ())
    assert plant.records[0].ttft_ms / 1000 == pytest.approx(0.5 + 0.5 / 0.5**0.6 + 0.0111, rel=1e-2)


def test_an_engine_is_as_slow_as_its_slowest_gpu() -> None:
    plant = disaggregated(gpus_per_replica=4)
    gpus = [r.gpu for r in plant.readings() if r.pool == "prefill"]
    assert len(gpus) == 4
    plant.set_cap(gpus[2], 378_000)
    finish(plant, [Request(plant.now_s, 1000, 1)])
    assert plant.records[0].ttft_ms == pytest.approx(100 / 0.5**0.6 + 11.1, rel=2e-2)


def test_the_sum_of_caps_bounds_the_cluster_over_two_seconds() -> None:
    plant = disaggregated(3, 3)
    for reading in plant.readings():
        plant.set_cap(reading.gpu, 250_000)
    plant.submit([Request(0.05 * i, 2000, 200) for i in range(2000)])
    plant.advance(2.0)
    before_j = plant.total_energy_j()
    for _ in range(40):
        plant.advance(plant.now_s + 2.0)
        energy_j = plant.total_energy_j()
        assert energy_j - before_j <= 2.0 * 8 * 250 * 1.01
        before_j = energy_j


def test_serving_energy_and_gpu_hours_count_only_held_gpus() -> None:
    plant = disaggregated()
    plant.advance(3600.0)
    assert plant.gpu_hours() == pytest.approx(2.0)
    idle_j = 75 * 3600
    assert plant.total_energy_j() == pytest.approx(8 * idle_j, rel=1e-3)
    assert plant.serving_energy_j() == pytest.approx(2 * idle_j, rel=1e-3)
