"""Settled counts get in closed form what the optimiser would have found."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.allocation.closed_form import settled
from planner.core.allocation.optimiser.solve import allocate
from planner.domain.demand import DeploymentDemand, PoolDemand, SiteLimits
from planner.domain.ids import DeploymentId
from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.domain.units import Milliwatts
from tests.sizes_of_runs import examples
from tests.unit.planner.core.small_site import DECODE, PREFILL, SITE

curves = st.builds(
    lambda p_s, span, alpha, useful: PowerCurve(p_s, p_s + span, alpha, 80_000, 200_000, 700_000, useful),
    st.integers(100_000, 300_000),
    st.integers(100_000, 350_000),
    st.floats(0.1, 0.9),
    st.integers(200_000, 400_000),
)


@st.composite
def demands(draw: st.DrawFn) -> DeploymentDemand:
    pools = {}
    for name in (PREFILL, DECODE):
        count = draw(st.integers(1, 6))
        need, busy = draw(st.floats(0.01, 1.0)), draw(st.floats(0.0, 1.0))
        current = draw(st.integers(0, 6))
        size, curve, least = draw(st.sampled_from([1, 2, 4])), draw(curves), draw(st.floats(0.0, 1.0))
        pools[name] = PoolDemand(
            name, Role(name), size, current, count, (need,), (busy,), curve, count, least_speed=least
        )
    return DeploymentDemand(DeploymentId("d"), SITE, pools)


@settings(max_examples=examples(50, 150), deadline=None)
@given(demands(), st.integers(1, 60), st.integers(200_000, 20_000_000))
def test_the_closed_form_is_the_optimum(demand: DeploymentDemand, gpus: int, budget_mw: int) -> None:
    limits = SiteLimits(SITE, Milliwatts(budget_mw), gpus, Milliwatts(200_000))
    found = settled([demand], limits)
    best = allocate([demand], limits)
    if found is None:
        return
    assert {key: (g.replicas, g.setpoint.cap_mw) for key, g in found.pools.items()} == {
        key: (g.replicas, g.setpoint.cap_mw) for key, g in best.pools.items()
    }
    assert best.shortfall[demand.deployment] == 0.0


@settings(max_examples=100, deadline=None)
@given(demands())
def test_with_plenty_of_everything_there_is_an_answer(demand: DeploymentDemand) -> None:
    assert settled([demand], SiteLimits(SITE, Milliwatts(10**9), 100, Milliwatts(200_000))) is not None
