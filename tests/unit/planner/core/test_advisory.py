"""A deployment that is only watched: everything is planned and recorded, and nothing of it is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.domain.config import OperationMode, SiteConfig
from planner.domain.ids import DeploymentId, GpuId, SiteId
from planner.domain.observation import BudgetCommand, PoolObservation
from planner.domain.pool import Replicas
from planner.domain.reasons import ReasonCode
from planner.domain.units import Milliwatts
from tests.unit.planner.core.small_site import (
    CURVE,
    DECODE,
    PREFILL,
    SITE,
    D,
    SmallSite,
    deployment,
    planner,
    pool,
    traffic,
)

WATCHED = DeploymentId("watched")
QUICK = {name: pool(name, startup_s=1.0) for name in (PREFILL, DECODE)}


def watched_alone(budget_mw: int) -> SmallSite:
    w = SmallSite(planner(deployment(QUICK, mode=OperationMode.ADVISORY), budget_mw))
    w.run_pods(prefill=1, decode=1)
    return w


def beside(budget_mw: int, stand_mw: int = CURVE.max_mw) -> SmallSite:
    """An acting deployment on a node whose last four GPUs belong to a watched one, limited to ``stand_mw`` by hand."""
    other = replace(deployment(QUICK, mode=OperationMode.ADVISORY), deployment=WATCHED)
    config = planner(deployment(QUICK), budget_mw)
    w = SmallSite(replace(config, deployments={**config.deployments, WATCHED: other}))
    w.neighbours = {GpuId(f"n0-g{i}"): (WATCHED, PREFILL if i < 6 else DECODE) for i in range(4, 8)}
    w.caps.update(dict.fromkeys(w.neighbours, stand_mw))
    pools = {name: PoolObservation(Replicas(ready=2)) for name in (PREFILL, DECODE)}
    w.seen_neighbours = {WATCHED: replace(traffic(80.0), pools=pools)}
    w.run_pods(prefill=1, decode=1)
    return w


def ticks(w: SmallSite, rate: float, n: int = 8) -> None:
    for _ in range(n):
        w.now_s += 30.0
        w.tick(traffic(rate))
        w.pass_time(20.0)


@pytest.mark.parametrize("budget_mw", [8 * CURVE.max_mw, 4_000_000, 1_700_000])
def test_a_site_that_is_only_watched_gets_no_decision_of_any_kind(budget_mw: int) -> None:
    w = watched_alone(budget_mw)
    ticks(w, 80.0)
    w.react(BudgetCommand(SITE, Milliwatts(1_650_000), w.now_s, sequence=1))
    w.pass_time(60.0)
    assert w.power == [], "not even a renewal: stopping the observer must let no lease end"
    assert w.published == []
    assert set(w.caps.values()) == {CURVE.max_mw}


def test_the_record_has_the_counts_and_caps_that_would_have_been_ordered() -> None:
    """As far as a plant that does not follow lets the two be compared: at the first tick."""
    w, acting = watched_alone(4_000_000), SmallSite(planner(deployment(QUICK), 4_000_000))
    acting.run_pods(prefill=1, decode=1)
    shown, done = w.tick(traffic(80.0)), acting.tick(traffic(80.0))
    for name in (PREFILL, DECODE):
        mine, theirs = shown.deployments[D].pools[name], done.deployments[D].pools[name]
        assert mine.setpoint == theirs.setpoint is not None
        assert mine.wanted == theirs.wanted
        assert mine.chain[-1].reason is ReasonCode.ADVISORY
    assert shown.deployments[D].pools[PREFILL].granted > 1
    assert shown.deployments[D].expected_watts is not None


def test_a_watched_deployment_teaches_no_speed_that_its_engines_do_not_have() -> None:
    w = watched_alone(3_000_000)
    ticks(w, 80.0, 2)
    assert w.state.deployments[D].pending.goals == {}


@pytest.mark.parametrize("stand_mw", [CURVE.max_mw, 450_000])
def test_beside_others_its_gpus_are_charged_as_they_stand_and_stay_there(stand_mw: int) -> None:
    w = beside(8 * CURVE.max_mw, stand_mw)
    ticks(w, 20.0)
    cut_mw = 4 * stand_mw + 4 * CURVE.min_mw + 50_000
    w.react(BudgetCommand(SITE, Milliwatts(cut_mw), w.now_s, sequence=1))
    w.pass_time(60.0)
    ticks(w, 20.0, 3)
    assert {w.caps[gpu] for gpu in w.neighbours} == {stand_mw}
    assert sum(w.caps.values()) <= cut_mw
    orders = [cap for order in w.power for cap in order.caps if cap.gpu in w.neighbours]
    assert {cap.setpoint.cap_mw for cap in orders} == {stand_mw}
    assert {cap.fallback_mw for cap in orders} == {stand_mw}, "the end of a lease lowers nothing"
    page = next(iter(w.state.power[SITE].nodes.values()))
    charges = dict(zip(page.cards.gpus, page.charge_mw, strict=True))
    assert {charges[gpu] for gpu in w.neighbours} == {stand_mw}


def test_beside_others_only_the_acting_deployment_scales_and_both_are_explained() -> None:
    w = beside(8 * CURVE.max_mw)
    plan = w.tick(traffic(20.0))
    for _ in range(4):
        w.pass_time(29.0)
        w.now_s += 1.0
        plan = w.tick(traffic(20.0))
    assert w.published
    assert {each.deployment for each in w.published} == {D}
    for name in (D, WATCHED):
        assert all(each.setpoint is not None for each in plan.deployments[name].pools.values())
    assert plan.deployments[WATCHED].pools[PREFILL].chain[-1].reason is ReasonCode.ADVISORY


def test_what_a_watched_deployment_would_need_is_not_taken_from_those_that_act() -> None:
    """The watched one would want every free GPU; the acting one gets what it gets with an idle neighbour."""
    greedy, idle = beside(8 * CURVE.max_mw), beside(8 * CURVE.max_mw)
    idle.seen_neighbours = {}
    ticks(greedy, 20.0)
    ticks(idle, 20.0)
    assert greedy.pods == idle.pods
    assert greedy.caps == idle.caps


def test_a_gpu_is_ordered_like_any_other_once_the_watched_pod_is_gone() -> None:
    w = beside(8 * CURVE.max_mw)
    ticks(w, 20.0, 2)
    gone = GpuId("n0-g7")
    del w.neighbours[gone]
    w.react(BudgetCommand(SITE, Milliwatts(4_000_000), w.now_s, sequence=1))
    w.pass_time(60.0)
    assert w.caps[gone] < CURVE.max_mw


def test_a_site_without_deployments_is_still_kept_within_its_budget() -> None:
    config = planner(deployment(QUICK), 4_000_000)
    w = SmallSite(
        replace(
            config,
            deployments={D: replace(config.deployments[D], site=SiteId("other"))},
            sites={SITE: SiteConfig(SITE, Milliwatts(3_000_000))},
        )
    )
    w.tick(traffic(1.0))
    w.pass_time(30.0)
    assert sum(w.caps.values()) <= 3_000_000
