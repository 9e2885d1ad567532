"""When a scale-up that waits for watts goes out with less than all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.core.power.reservations import ReservedGpus
from planner.core.publishable import Aim, decide
from planner.core.state import DeploymentState, Flow, Learned, OperatorCommands, Pending, PoolState
from planner.core.step import react
from planner.domain.config import PlannerConfig, SiteConfig
from planner.domain.ids import PoolId
from planner.domain.observation import Observation
from planner.domain.units import Milliwatts
from tests.unit.planner.core.small_site import CURVE, DECODE, PREFILL, SITE, D, SmallSite, deployment, planner, traffic

FLOW = Flow(published={PREFILL: 1, DECODE: 1})
LEARNED = Learned(pools={PREFILL: PoolState(), DECODE: PoolState()})
AIM = Aim(deployment(), {PREFILL: 1, DECODE: 1}, {PREFILL: 3, DECODE: 1})


def published(since_s: float, now_s: float, patience_s: float = 8.0) -> dict[PoolId, int] | None:
    """The counts that go out with watts for one of two more replicas; None where the decision waits."""
    partly = ReservedGpus((), {PREFILL: 2, DECODE: 1}, {PREFILL: 3, DECODE: 1}, patience_s)
    state = DeploymentState(FLOW, LEARNED, pending=Pending(since_s=since_s))
    _, order, _ = decide(state, AIM, partly, PlannerConfig().clock(now_s))
    return None if order is None else dict(order.replicas)


@pytest.mark.parametrize("since_s", [0.0, 0.001, 50.0])
def test_a_wait_ends_whenever_it_began(since_s: float) -> None:
    assert published(since_s, since_s + 7.9) is None
    assert published(since_s, since_s + 8.1) == {PREFILL: 2, DECODE: 1}


def test_a_wait_is_as_long_as_its_site_takes_to_move_watts() -> None:
    assert published(50.0, 70.0, patience_s=30.0) is None
    assert published(50.0, 80.1, patience_s=30.0) == {PREFILL: 2, DECODE: 1}
    default, slow = SiteConfig(SITE, Milliwatts(1)), SiteConfig(SITE, Milliwatts(1), answer_s=10.0, settle_s=6.0)
    assert default.patience_s == 8.0
    assert slow.patience_s == 26.0


@pytest.mark.parametrize(("answer_s", "settle_s"), [(3.0, 2.0), (10.0, 6.0), (1.0, 0.5)])
def test_the_planner_wakes_when_the_site_s_patience_ends(answer_s: float, settle_s: float) -> None:
    config = planner(budget_mw=8 * CURVE.max_mw)
    site = replace(config.sites[SITE], answer_s=answer_s, settle_s=settle_s)
    w = SmallSite(replace(config, sites={SITE: site}))
    w.run_pods(prefill=1, decode=1)
    for _ in range(3):
        w.tick(traffic(1.0))
        w.pass_time(30.0)
    waits, paused = Pending(since_s=w.now_s), OperatorCommands(paused=True)
    known = replace(w.state.deployments[D], pending=waits, operator=paused)
    state = replace(w.state, deployments={D: known})
    ends_s = w.now_s + 2 * answer_s + settle_s
    _, before = react(state, Observation(), w.config, w.config.clock(ends_s - 0.01))
    assert before.next_event_s == pytest.approx(ends_s)
