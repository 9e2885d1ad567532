"""Watts of GPUs whose replicas have left come back on `drained` and an idle draw, for connectors that report phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from planner.core.intake import initial_state
from planner.core.leavers import drained_id
from planner.core.state import DeploymentState, Flow
from planner.domain.config import Covers
from planner.domain.ids import DeploymentId, GpuId, SiteId
from planner.domain.observation import (
    LEFT,
    BudgetCommand,
    DeploymentObservation,
    GpuObservation,
    Observation,
    ScalingAckSeen,
    StoredCaps,
)
from planner.domain.units import GpuSetpoint, Milliwatts
from tests.unit.planner.core.small_site import CURVE, SITE, D, SmallSite, deployment, planner, traffic
from tests.unit.planner.core.test_step import QUICK


@dataclass
class DrainingSite(SmallSite):
    """A site whose connector reports phases. ``draws``: the draw of single GPUs."""

    ack: ScalingAckSeen | None = None
    draws: dict[GpuId, int | None] = field(default_factory=dict)

    unreported: set[GpuId] = field(default_factory=set)

    def observation(self, seen: DeploymentObservation | None, budget: BudgetCommand | None = None) -> Observation:
        found = super().observation(seen, budget)
        nodes = {
            name: replace(node, gpus={gpu: row for gpu, row in node.gpus.items() if gpu not in self.unreported})
            for name, node in found.nodes.items()
        }
        return replace(found, nodes=nodes, scaling_acks={D: self.ack} if self.ack is not None else {})

    def _gpu(self, gpu: GpuId) -> GpuObservation:
        return replace(super()._gpu(gpu), draw_mw=self.draws.get(gpu, 100_000))

    def acknowledge(self, phase: str, status: str = "applied") -> None:
        decision = self.state.deployments[D].flow.decision_id
        done = decision if status == "applied" else decision - 1
        self.ack = ScalingAckSeen(D, decision, done, status, phase=phase)

    def left(self) -> list[GpuId]:
        return [gpu for gpu in self.caps if gpu not in self.pods]

    def parked(self) -> list[GpuId]:
        return [gpu for gpu in self.left() if self.caps[gpu] == CURVE.min_mw]


def shrunk(ack_before: str | None = "drained") -> tuple[DrainingSite, list[GpuId]]:
    """A site that has just let replicas go, whose pods are gone, and their GPUs."""
    site = DrainingSite(planner(deployment(QUICK), budget_mw=9_000_000))
    site.tick(traffic(12.0))
    site.pass_time(20)
    site.tick(traffic(12.0))
    if ack_before is not None:
        site.acknowledge(ack_before)
    site.pass_time(20)
    busy = set(site.pods)
    for _ in range(4):  # the forecast follows
        site.now_s += 30
        site.tick(traffic(0.5))
        if site.pods.keys() != busy:
            break
    gone = sorted(busy - site.pods.keys())
    assert gone
    return site, gone


def caps(site: SmallSite, gpus: list[GpuId]) -> Mapping[GpuId, int]:
    return {gpu: site.caps[gpu] for gpu in gpus}


def parked(gpus: list[GpuId]) -> Mapping[GpuId, int]:
    return dict.fromkeys(gpus, CURVE.min_mw)


@pytest.mark.parametrize("phase", ["starting", "draining"])
def test_watts_of_what_left_stay_until_drained(phase: str) -> None:
    site, gone = shrunk()
    before = caps(site, gone)
    site.acknowledge(phase, "accepted" if phase == "starting" else "applied")
    site.pass_time(60)
    assert caps(site, gone) == before
    plan = site.tick(traffic(0.5))
    assert not set(gone) & {gpu for order in plan.scaling for hint in order.placements for gpu in hint.gpus}
    notes = [note.sentence for one in plan.sites.values() for note in one.notes]
    assert any(f"{len(gone)} GPUs without a pod keep their watts" in note for note in notes)
    site.acknowledge("drained")
    site.pass_time(5)
    assert caps(site, gone) == parked(gone)


def test_without_phases_the_pods_end_is_enough() -> None:
    site, gone = shrunk(None)
    site.pass_time(5)
    assert caps(site, gone) == parked(gone)


@pytest.mark.parametrize("draw_mw", [CURVE.p_s_mw + 1, None])
def test_a_drained_gpu_that_still_draws_or_may_draw_keeps_its_watts(draw_mw: int | None) -> None:
    site, gone = shrunk()
    before = caps(site, gone)
    site.draws = {gone[0]: draw_mw}
    site.acknowledge("drained")
    site.pass_time(30)
    assert site.caps[gone[0]] == before[gone[0]]
    assert caps(site, gone[1:]) == parked(gone[1:])
    site.draws = {}
    site.pass_time(5)
    assert caps(site, gone) == parked(gone)


def test_a_connector_that_is_gone_does_not_hold_watts_beyond_the_timeout() -> None:
    site, gone = shrunk()
    decided_s = site.state.deployments[D].flow.decided_at_s
    site.acknowledge("draining")
    site.pass_time(5)
    assert caps(site, gone) != parked(gone)
    site.now_s = decided_s + site.config.deployments[D].scaling_timeout_s
    site.pass_time(5)
    assert caps(site, gone) == parked(gone)


def test_a_report_without_the_gpu_does_not_end_the_wait() -> None:
    site, gone = shrunk()
    site.acknowledge("draining")
    site.pass_time(5)
    before = caps(site, gone)
    site.unreported = {*gone}
    site.pass_time(2)
    site.unreported = set()
    site.pass_time(30)
    assert caps(site, gone) == before
    site.acknowledge("drained")
    site.pass_time(30)
    assert caps(site, gone) == parked(gone)


def test_further_decisions_do_not_prolong_the_wait() -> None:
    site, gone = shrunk()
    timeout_s = site.config.deployments[D].scaling_timeout_s
    site.acknowledge("draining")
    site.pass_time(5)
    assert caps(site, gone) != parked(gone)
    known = site.state.deployments[D]
    later = replace(known.flow, decision_id=known.flow.decision_id + 1, decided_at_s=site.now_s + timeout_s)
    site.state = replace(site.state, deployments={D: replace(known, flow=later)})
    site.now_s += timeout_s
    site.pass_time(5)
    assert caps(site, gone) == parked(gone)


def led_anew(site: DrainingSite, flow: Flow, outside: frozenset[GpuId] = frozenset()) -> None:
    """Another leader takes over."""
    ledgers = site.state.power.values()
    stored = [
        StoredCaps(
            node,
            ledger.next_id - 1,
            {g: GpuSetpoint(Milliwatts(site.caps[g])) for g in ledger.cards.gpus},
            dict(zip(ledger.cards.gpus, ledger.charge_mw, strict=True)),
            site.now_s,
            outside=outside,
        )
        for power in ledgers
        for node, ledger in power.nodes.items()
    ]
    site.state = initial_state(site.config, 1, site.now_s, [(D, flow)], stored)


def test_the_next_leader_waits_for_drained_too() -> None:
    site, gone = shrunk()
    site.acknowledge("draining")
    site.pass_time(5)
    before = caps(site, gone)
    led_anew(site, site.state.deployments[D].flow)
    site.pass_time(200)
    site.tick(traffic(0.5))
    site.pass_time(30)
    assert caps(site, gone) == before
    site.acknowledge("drained")
    site.pass_time(30)
    assert caps(site, gone) == parked(gone)


def test_the_next_leader_waits_no_longer_than_the_timeout_either() -> None:
    site, gone = shrunk()
    site.acknowledge("draining")
    site.pass_time(5)
    flow = site.state.deployments[D].flow
    timeout_s = site.config.deployments[D].scaling_timeout_s
    led_anew(site, replace(flow, decided_at_s=site.now_s + timeout_s))
    site.pass_time(30)
    assert caps(site, gone) != parked(gone)
    site.now_s += timeout_s
    site.tick(traffic(0.5))
    site.pass_time(60)
    assert caps(site, gone) == parked(gone)


def test_the_next_leader_of_workers_only_holds_no_gpu_that_its_predecessor_left_outside() -> None:
    site, _ = shrunk()
    covers = replace(site.config.sites[SITE], covers=Covers.WORKERS, deployments=frozenset({D}))
    site.config = replace(site.config, sites={SITE: covers})
    site.acknowledge("draining")
    free, left = site.left()[0], site.left()[1]
    led_anew(site, site.state.deployments[D].flow, frozenset({free}))
    site.react()
    seen = {name: gpu for n in site.state.power[SITE].nodes.values() if n.seen for name, gpu in n.seen.gpus.items()}
    assert (seen[free].worker, seen[left].worker) == (None, LEFT)


def test_the_next_leader_waits_for_deployments_of_the_same_site_only() -> None:
    site, _ = shrunk()
    site.acknowledge("drained")
    site.pass_time(5)
    elsewhere = DeploymentId("elsewhere")
    other = replace(deployment(QUICK), deployment=elsewhere, site=SiteId("other-site"))
    site.config = replace(site.config, deployments={**site.config.deployments, elsewhere: other})
    led_anew(site, site.state.deployments[D].flow)
    behind = DeploymentState(Flow(decision_id=4, drained_decision_id=3, decided_at_s=site.now_s))
    site.state = replace(site.state, deployments={**site.state.deployments, elsewhere: behind})
    site.pass_time(5)
    held = [g.worker for n in site.state.power[SITE].nodes.values() if n.seen for g in n.seen.gpus.values()]
    assert LEFT not in held


@pytest.mark.parametrize(
    ("known", "status", "phase", "retryable", "after"),
    [
        (None, "accepted", "", True, None),
        (None, "accepted", "starting", True, -1),
        (3, "accepted", "", True, 3),
        (3, "applied", "draining", True, 3),
        (3, "applied", "drained", True, 7),
        (3, "applied", "", True, None),
        (3, "applied", "applied", True, None),
        (3, "partial", "", True, 3),
        (3, "failed", "starting", True, 3),
        (6, "failed", "starting", False, 7),
        (6, "rejected", "", True, 7),
        (3, "failed", "starting", False, 3),
        (3, "rejected", "", True, 3),
    ],
)
def test_what_each_acknowledgement_says_about_leavers(
    known: int | None, status: str, phase: str, retryable: bool, after: int | None
) -> None:
    assert drained_id(known, ScalingAckSeen(D, 7, 6, status, phase=phase, retryable=retryable)) == after


def test_a_refused_decision_does_not_end_the_wait_for_a_superseded_one() -> None:
    """Decision 3 was the last to be carried out; 4 to 6 let replicas go and were superseded, which may still drain."""
    assert drained_id(3, ScalingAckSeen(D, 7, 3, "rejected")) == 3


def test_a_newer_decision_waits_again() -> None:
    assert Flow(decision_id=8, drained_decision_id=7).drained_decision_id != 8
    site, gone = shrunk()
    flow = site.state.deployments[D].flow
    assert flow.drained_decision_id is not None
    assert flow.drained_decision_id < flow.decision_id  # as published, before any answer
    before = caps(site, gone)
    site.pass_time(30)
    assert caps(site, gone) == before
