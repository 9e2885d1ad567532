"""Simulated GPUs: limits act with a lag and a short overshoot, clamp, reset, and fail on request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.drivers.simulated import H200, SimulatedDriver, SimulatedGpu
from agent.ports import DriverError, DriverErrorKind


class HandClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def one(**state: Any) -> tuple[SimulatedDriver, SimulatedGpu, HandClock]:
    clock = HandClock()
    gpu = SimulatedGpu("g", **state)
    return SimulatedDriver([gpu], clock=clock), gpu, clock


def test_the_draw_follows_a_lower_limit_with_the_cards_lag() -> None:
    driver, gpu, clock = one()
    gpu.set_load(650_000, 0.0)
    clock.now_s = 10.0
    assert driver.read("g").draw_mw == 650_000
    driver.set_limit("g", 300_000)
    at_once = driver.read("g").draw_mw
    clock.now_s += 5 * H200.lag_s
    later = driver.read("g").draw_mw
    assert at_once == 650_000
    assert later is not None
    assert 300_000 <= later < 304_000
    assert driver.read("g").throttle_reasons == ("sw_power_cap",)


def test_a_new_load_overshoots_the_limit_for_a_moment_only() -> None:
    driver, gpu, clock = one()
    driver.set_limit("g", 300_000)
    gpu.card = type(H200)(lag_s=0.001)
    clock.now_s = 1.0
    gpu.set_load(650_000, 1.0)
    clock.now_s = 1.04
    peak = driver.read("g").draw_mw
    clock.now_s = 1.2
    rest = driver.read("g").draw_mw
    assert peak == 324_000
    assert rest == 300_000


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(75_000, 700_000), st.integers(1, 900_000)), max_size=20))
def test_energy_never_falls_and_never_exceeds_what_the_highest_draw_would_need(
    steps: list[tuple[float, int, int]],
) -> None:
    driver, gpu, clock = one()
    last = 0
    for dt_s, load, limit in steps:
        gpu.set_load(load, clock.now_s)
        driver.set_limit("g", limit)
        clock.now_s += dt_s
        energy = driver.read("g").energy_mj
        assert energy is not None
        assert last <= energy <= last + 700_000 * 1.08 * dt_s + 1
        last = energy
        assert 200_000 <= gpu.enforced_mw <= 700_000


def test_clamping_ignored_writes_a_second_limiter_and_a_reset() -> None:
    driver, gpu, _ = one()
    driver.set_limit("g", 100_000)
    assert driver.read("g").enforced_mw == 200_000
    gpu.limit_elsewhere(150_000)
    reading = driver.read("g")
    assert (reading.requested_mw, reading.enforced_mw) == (200_000, 150_000)
    gpu.limit_elsewhere(None)
    gpu.reset(0.0)
    reading = driver.read("g")
    assert (reading.enforced_mw, reading.resets, reading.energy_mj) == (700_000, 1, 0)
    gpu.ignores_writes = True
    driver.set_limit("g", 300_000)
    assert driver.read("g").enforced_mw == 700_000


@pytest.mark.parametrize("call", ["read", "set_limit"])
def test_faults_answer_as_asked(call: str) -> None:
    driver, _, _ = one(faults={call: DriverErrorKind.GPU_LOST, "enumerate": DriverErrorKind.TIMEOUT})
    with pytest.raises(DriverError) as caught:
        driver.read("g") if call == "read" else driver.set_limit("g", 1)
    assert caught.value.kind is DriverErrorKind.GPU_LOST
    assert driver.enumerate() == []
    assert driver.failed()["g"].kind is DriverErrorKind.TIMEOUT
