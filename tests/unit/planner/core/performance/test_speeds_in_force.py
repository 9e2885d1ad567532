"""What engines show is read at the speed that their GPUs had, by the limits that stood on them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from planner.core.intake import absorb
from planner.core.performance import speeds_in_force
from planner.core.performance.engine_model import engine
from planner.core.performance.speeds_in_force import FULL, Speeds
from planner.core.power.curve import speed
from planner.domain.ids import GpuId, PoolId
from planner.domain.observation import DeploymentObservation
from planner.domain.plan import Plan
from planner.domain.reading import Sample
from tests.unit.planner.core.small_site import CURVE, DECODE, PREFILL, PROFILE, SITE, D, SmallSite, deployment, planner
from tests.unit.planner.core.small_site import traffic as one_interval

PARKED = speed(CURVE, CURVE.min_mw)
HELD = {(D, PREFILL): (GpuId("n0-g0"),), (D, DECODE): (GpuId("n0-g1"), GpuId("n0-g2"))}


def site(cap_mw: int = CURVE.max_mw) -> SmallSite:
    """A prefill and two decode replicas on GPUs at ``cap_mw``, which no planner has commanded yet."""
    found = SmallSite(planner(deployment(itl_ms=50.0, ttft_ms=1000.0), budget_mw=8 * 700_000))
    found.caps = dict.fromkeys(found.caps, cap_mw)
    found.run_pods(prefill=1, decode=2)
    return found


def reported(world: SmallSite) -> SmallSite:
    """After the agents' first reports, before anything is decided."""
    seen = world.observation(None)
    world.state = absorb(world.state, seen, world.config, world.config.clock(world.now_s))
    return world


def observed(world: SmallSite) -> Mapping[PoolId, Speeds]:
    return speeds_in_force.now(world.config.deployments[D], world.state.power[SITE], HELD)


def as_profiled(at: float) -> DeploymentObservation:
    """What two decode engines as profiled show of 30 requests a second at a speed."""
    model, prefill = engine(PROFILE).decode, engine(PROFILE).prefill
    assert model is not None
    assert prefill is not None
    step_ms = model.a_ms
    for _ in range(200):
        batch = min(30.0 * 150.0 / 2 * step_ms / 1000.0, model.batch_limit(3075.0))
        step_ms = model.itl_ms(batch + 1.0, 3075.0) / at
    return one_interval(30.0, itl_ms=Sample(step_ms), ttft_ms=Sample(prefill.ttft_ms(3000.0) / at))


def decode_factor(plan: Plan) -> float:
    return plan.deployments[D].corrections["decode"]


def test_parked_gpus_are_not_slow_engines() -> None:
    """A planner that starts where GPUs are parked: it read the first intervals as engines 2 times slower."""
    world = site(CURVE.min_mw)
    assert decode_factor(world.tick(as_profiled(PARKED))) == pytest.approx(1.0, abs=0.05)
    world.pass_time(30)
    assert decode_factor(world.tick(as_profiled(PARKED))) == pytest.approx(1.0, abs=0.05)


def test_engines_that_are_slow_at_full_speed_are_found_out_from_the_first_interval() -> None:
    seen = as_profiled(1.0 / 2.2)
    world, factors = site(), []
    for _ in range(15):
        factors.append(decode_factor(world.tick(seen)))
        world.pass_time(30)
    assert factors[0] > 1.1
    assert factors == sorted(factors)
    assert factors[-1] > 1.7


def test_before_the_first_decision_the_reported_limit_counts() -> None:
    assert observed(reported(site(CURVE.min_mw))) == {PREFILL: Speeds(PARKED, PARKED), DECODE: Speeds(PARKED, PARKED)}


def test_a_pool_of_different_limits_has_their_mean_speed() -> None:
    world = site()
    world.caps[GpuId("n0-g1")] = 300_000
    mean = (speed(CURVE, 300_000) + 1.0) / 2.0
    assert observed(reported(world)) == {PREFILL: FULL, DECODE: Speeds(mean, mean)}


def test_until_a_decision_is_answered_the_speed_lies_between_what_stands_and_what_it_orders() -> None:
    world = site()
    world.tick(one_interval(12.0))
    ordered = {cap.gpu: speed(CURVE, cap.setpoint.cap_mw) for cap in world.power[-1].caps}[GpuId("n0-g1")]
    assert world.acks
    assert ordered < 1.0
    assert observed(world)[DECODE] == Speeds(ordered, 1.0)
    world.react()
    assert observed(world)[DECODE] == Speeds(ordered, ordered)


def test_a_raise_leaves_the_speed_open_and_a_lower_limit_does_not() -> None:
    config, power = planner(deployment(), budget_mw=8 * 700_000).deployments[D], reported(site()).state.power[SITE]
    since, slow = speeds_in_force.since, Speeds(0.4, 0.4)
    assert since({DECODE: slow}, {DECODE: FULL}, config, power, {}) == {DECODE: Speeds(0.4, 1.0)}
    assert since({DECODE: FULL}, {DECODE: slow}, config, power, {}) == {DECODE: slow}
    assert since({DECODE: Speeds(0.3, 1.0)}, {DECODE: slow}, config, power, {}) == {DECODE: Speeds(0.3, 0.4)}
    assert since({}, {DECODE: slow}, config, power, {}) == {}
    assert since({DECODE: FULL}, {}, config, power, {}) == {}
    assert since(None, {DECODE: slow}, config, power, {}) == {DECODE: slow}


def test_where_no_agent_has_ever_reported_only_what_was_ordered_limits_the_gpus() -> None:
    config = deployment()
    assert speeds_in_force.now(config, None, {}) == {}
    for power in (None, site().state.power[SITE]):
        assert speeds_in_force.since({}, {}, config, power, {}) == {PREFILL: FULL, DECODE: FULL}
        ordered = speeds_in_force.since({}, {}, config, power, {DECODE: 0.6})
        assert ordered == {PREFILL: FULL, DECODE: Speeds(0.6, 0.6)}
