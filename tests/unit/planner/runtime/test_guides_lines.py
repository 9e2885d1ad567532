"""The guides' log lines and metric names, from a plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from planner.domain.ids import PoolId
from planner.domain.plan import DeploymentPlan, Limited, PoolPlan
from planner.domain.pool import Role
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts
from planner.runtime.telemetry.event_files import scalars
from planner.runtime.telemetry.interval_log import lines
from tests.unit.planner.core.small_site import PREFILL, D, deployment, pool


def plan() -> DeploymentPlan:
    why = (Limited(2, ReasonCode.CLASSIC, "2 prefill replicas by the classic formula"),)
    cap = GpuSetpoint(Milliwatts(250_000))
    prefill = PoolPlan(PoolId("prefill"), Role.PREFILL, current=1, wanted=2, granted=2, setpoint=cap, chain=why)
    decode = PoolPlan(PoolId("decode"), Role.DECODE, current=2, wanted=2, granted=2, setpoint=cap)
    return DeploymentPlan(
        D,
        {prefill.pool: prefill, decode.pool: decode},
        observed={"requests": 120.0, "isl_tokens": 3000.5, "osl_tokens": 150.0, "ttft_ms": 2500.0, "itl_ms": None},
    )


def test_an_interval_is_logged_in_the_guides_words_with_figures() -> None:
    config = replace(deployment({PREFILL: pool(PREFILL)}), ttft_ms=2000.0, itl_ms=100.0)
    assert list(lines(plan(), config)) == [
        "Observed num_req: 120.00 isl: 3000.50 osl: 150.00",
        "Observed ttft: 2500.00ms itl: unknown",
        "Current TTFT: 2500ms, Target: 2000ms (exceeding SLA)",
        "Scaling prefill workers: 1 -> 2 (2 prefill replicas by the classic formula)",
        "Applied power limits: 2 prefill @ 250W, 2 decode @ 250W",
    ]


def test_what_is_quiet_and_unpowered_has_the_two_observations_only() -> None:
    quiet = replace(plan(), observed={"ttft_ms": 10.0}, pools={})
    config = deployment({PREFILL: pool(PREFILL)})
    assert len(list(lines(quiet, config))) == 2


def test_a_tick_in_tensorboard_has_every_known_quantity_and_no_unknown_one(tmp_path: Path) -> None:
    found = dict(scalars(plan()))
    assert found["observed/ttft_ms"] == 2500.0
    assert "observed/itl_ms" not in found
    assert found["replicas/prefill granted"] == 2.0
    assert found["watts/decode cap of a GPU"] == 250.0
