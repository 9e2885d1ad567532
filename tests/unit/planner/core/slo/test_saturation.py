"""Where counts could not follow the quantile, the controller of a promised share knows; and the tick says so."""

from __future__ import annotations

from typing import Any

import pytest

from planner.core.slo.share_controller import SloState
from planner.core.step import react
from planner.domain.config import OperationMode
from planner.domain.observation import DeploymentCommand, DeploymentObservation, Observation
from planner.domain.plan import DeploymentPlan
from planner.domain.reading import Sample
from planner.domain.reasons import ReasonCode
from tests.unit.planner.core.small_site import DECODE, PREFILL, D, SmallSite, deployment, planner, pool, traffic


def site_of(watts: float = 5600.0, **changes: Any) -> SmallSite:
    site = SmallSite(planner(deployment(slo_share=0.97, **changes), budget_mw=round(watts * 1000)))
    site.run_pods(prefill=2, decode=1)
    return site


def busy(rate: float = 20.0, good: float = 0.8) -> DeploymentObservation:
    return traffic(rate, ttft_within=Sample(good), itl_within=Sample(1.0))


def ticks(site: SmallSite, count: int, what: DeploymentObservation) -> tuple[DeploymentPlan, SloState]:
    for _ in range(count):
        plan = site.tick(what).deployments[D]
        site.pass_time(30)
    slo = site.state.deployments[D].learned.slo
    assert slo is not None
    return plan, slo


def slo_note(plan: DeploymentPlan) -> str:
    (note,) = [note.sentence for note in plan.notes if note.reason is ReasonCode.SLO_SHARE]
    return note


def test_a_deployment_that_could_grow_is_not_stuck_and_its_decision_says_what_was_done() -> None:
    plan, slo = ticks(site_of(), 4, busy())
    assert (slo.stuck_up, slo.stuck_down) == ("", "")
    assert slo.quantile > 0.95
    assert plan.slo is not None
    assert plan.slo.quantile == slo.quantile
    assert "0.97 of the requests are promised good, 0.8000 of 600 were in the last interval" in slo_note(plan)
    assert "raised from" in slo_note(plan)


def test_at_its_most_replicas_it_is_not_raised() -> None:
    pools = {PREFILL: pool(PREFILL, max_replicas=2), DECODE: pool(DECODE)}
    plan, slo = ticks(site_of(pools=pools), 4, busy(rate=60.0))
    assert "prefill" in slo.stuck_up
    assert "not raised: prefill" in slo_note(plan)
    before = slo.quantile
    assert ticks(site_of(pools=pools), 12, busy(rate=60.0))[1].quantile == before


def test_short_of_watts_it_is_not_raised() -> None:
    plan, slo = ticks(site_of(2400.0), 4, busy(rate=120.0))
    assert slo.stuck_up
    assert "not raised: " in slo_note(plan)


def test_a_pin_holds_it_in_both_directions() -> None:
    site = site_of()
    ticks(site, 2, busy())
    pin = Observation(deployment_commands=(DeploymentCommand(D, "pin", {PREFILL: 2, DECODE: 1}, sequence=1),))
    site.state, _ = react(site.state, pin, site.config, site.config.clock(site.now_s))
    _, slo = ticks(site, 1, busy())
    assert slo.stuck_up == slo.stuck_down == "an operator pinned the replicas"
    held, _ = ticks(site, 3, busy(good=1.0))
    assert "not lowered: an operator pinned the replicas" in slo_note(held)


def test_counts_of_an_advisory_deployment_are_not_its_own() -> None:
    _, slo = ticks(site_of(mode=OperationMode.ADVISORY), 3, busy())
    assert slo.stuck_up == "the deployment is advisory"
    assert slo.quantile == pytest.approx(0.95, abs=0.01)


def test_a_decision_that_is_not_carried_out_holds_it_in_both_directions() -> None:
    site = site_of(scaling_timeout_s=90.0)
    site.obedient = False
    _, slo = ticks(site, 12, busy())
    assert slo.stuck_up == slo.stuck_down
    assert slo.stuck_up.endswith("is not carried out")
    held, after = ticks(site, 3, busy(good=1.0))
    assert after.quantile == slo.quantile
    assert "not lowered: decision" in slo_note(held)
    site.obedient, site.carried_out = True, site.state.deployments[D].flow.decision_id
    _, after = ticks(site, 4, busy(good=1.0))
    assert (after.stuck_down, after.quantile < slo.quantile) == ("", True)


def test_two_deployments_keep_two_promises() -> None:
    one, other = site_of(), site_of(ttft_quantile=0.8)
    assert ticks(one, 4, busy())[1].quantile > 0.95
    assert ticks(other, 4, busy(good=1.0))[1].quantile < 0.8
