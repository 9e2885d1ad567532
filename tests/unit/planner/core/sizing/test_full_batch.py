"""Prompts that come together share a batch: no cap makes one late that full speed makes in time, if watts suffice."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from planner.adapters.power_priors import Phase, curve, gpu
from planner.adapters.traces import Trace
from planner.core.allocation.closed_form import settled
from planner.core.allocation.optimiser.solve import allocate
from planner.core.performance.prefill_model import PrefillModel
from planner.core.sizing.prefill_station import full_batch_speed
from planner.core.sizing.sized_load import SizedLoad
from planner.domain.demand import DeploymentDemand, PoolDemand, SiteLimits
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.pool import Role
from planner.domain.units import Milliwatts
from planner.sim.evaluation.scores import score
from planner.sim.evaluation.simulation import simulate
from planner.sim.policies.catalogue import make
from tests.unit.planner.sim.small_scenario import scenario

LOAD = SizedLoad(req_per_s=5.0, isl_tokens=1000.0, osl_tokens=100.0)
MODEL = PrefillModel((0.0, 10_000.0), (0.0, 1000.0), batched_tokens=8192)
POOL = PoolDemand(
    pool=PoolId("prefill"),
    role=Role.PREFILL,
    gpus_per_replica=1,
    current_replicas=3,
    min_replicas=3,
    required_speed=(0.3,),
    utilisation=(0.2,),
    curve=curve(gpu("h100"), Phase.PREFILL),
    wanted=2,
    spare_speed=1.3,
    least_speed=0.9,
)


@pytest.mark.parametrize(
    ("target_ms", "correction", "speed"),
    [(1000.0, 1.0, 0.8), (1000.0, 0.5, 0.8), (1600.0, 1.5, 0.75), (500.0, 1.0, 1.0)],
)
def test_eight_prompts_of_a_batch_are_in_time(target_ms: float, correction: float, speed: float) -> None:
    assert full_batch_speed(MODEL, LOAD, target_ms, correction) == pytest.approx(speed)


def test_a_prompt_longer_than_a_batch_counts_alone() -> None:
    assert full_batch_speed(MODEL, replace(LOAD, isl_tokens=9000.0), 1000.0, 1.0) == pytest.approx(0.9)


def _demand(pool: PoolDemand) -> DeploymentDemand:
    return DeploymentDemand(DeploymentId("a"), SiteId("s"), {pool.pool: pool})


def test_caps_leave_that_speed_where_watts_suffice_and_not_where_they_are_short() -> None:
    ample = SiteLimits(SiteId("s"), Milliwatts(4 * 700_000), 4, Milliwatts(100_000))
    for answer in (settled([_demand(POOL)], ample), allocate([_demand(POOL)], ample)):
        assert answer is not None
        (grant,) = answer.pools.values()
        assert 0.9 <= grant.speed < 0.92
    short = replace(ample, budget_mw=Milliwatts(100_000 + 3 * 380_000))
    assert settled([_demand(POOL)], short) is None
    (grant,) = allocate([_demand(POOL)], short).pools.values()
    assert grant.setpoint.cap_mw <= 380_000
    idle = replace(POOL, required_speed=(0.0,))
    (grant,) = allocate([_demand(idle)], ample).pools.values()
    assert grant.setpoint.cap_mw == POOL.curve.useful_mw


def test_bursts_of_a_batch_are_in_time_on_more_replicas_than_their_mean_needs() -> None:
    """A client that sends eight prompts of 1,000 tokens at once, every four seconds: 20 % busy, and never a queue."""
    at_s = [4.0 * (i // 8) for i in range(8 * 150)]
    bursts = Trace("bursts", array("d", at_s), array("l", [1000] * len(at_s)), array("l", [20] * len(at_s)))
    alone = scenario(trace=bursts, ttft_ms=1000.0)
    full = score(simulate(alone, make("static:3p2d")))
    ours = score(simulate(alone, make("ours")))
    assert full.good_share > 0.99
    assert ours.good_share > 0.99
