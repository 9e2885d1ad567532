"""`covers: workers`: the budget holds for the GPUs of workers, wherever replicas start, and for no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from deploy.fault_simulation.mutations import RELEASED_BEFORE_READBACK, patched
from planner.core.intake import initial_state
from planner.core.power.site_state import charged_mw, pledged_mw
from planner.domain.config import Covers, PlannerConfig, ScalingRules
from planner.domain.ids import DeploymentId, GpuId, NodeId
from planner.domain.observation import (
    BudgetCommand,
    DeploymentObservation,
    GpuObservation,
    NodeObservation,
    Observation,
    StoredCaps,
)
from planner.domain.plan import Plan, ScalingDecision
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts
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

OTHERS = (DeploymentId("somebody"), DECODE)
AT_ONCE = ScalingRules(stabilization_window_s=0.0)
QUICK = {PREFILL: pool(PREFILL, scale_down=AT_ONCE), DECODE: pool(DECODE, scale_down=AT_ONCE)}


def workers_only(budget_mw: int) -> PlannerConfig:
    config = planner(deployment(QUICK), budget_mw=budget_mw)
    site = replace(config.sites[SITE], covers=Covers.WORKERS, deployments=frozenset({D}), expected_gpus=8)
    return replace(config, sites={SITE: site})


@dataclass
class Contrary(SmallSite):
    """Starts replicas on the free GPUs with the HIGHEST limits, and checks the budget whenever anything changed."""

    most_mw: int = 0
    lag_s: float = 0.0
    """How long agents take to carry out a decision."""
    under_way: list[tuple[float, Plan]] = field(default_factory=list)

    nameless: set[GpuId] = field(default_factory=set)
    """GPUs whose pods run without being listed by the API server."""
    unlabelled: set[GpuId] = field(default_factory=set)
    """GPUs whose pods are listed, without labels of a deployment."""
    unreported: set[GpuId] = field(default_factory=set)
    """GPUs that reports lack."""
    late: Mapping[NodeId, NodeObservation] = field(default_factory=dict)
    """Reports that arrive instead of today's."""

    def observation(self, seen: DeploymentObservation | None, budget: BudgetCommand | None = None) -> Observation:
        found = super().observation(seen, budget)
        nodes = {
            name: replace(node, gpus={gpu: row for gpu, row in node.gpus.items() if gpu not in self.unreported})
            for name, node in found.nodes.items()
        }
        return replace(found, nodes={**nodes, **self.late})

    def obey(self, decision: ScalingDecision) -> None:
        for name, count in decision.replicas.items():
            for gpu in [gpu for gpu, held in self.pods.items() if held == name][count:]:
                del self.pods[gpu]
            for _ in range(count - self.count(name)):
                free = [gpu for gpu in self.caps if gpu not in self.pods and gpu not in self.neighbours]
                self.pods[max(free, key=lambda gpu: self.caps[gpu])] = name
        self.carried_out = decision.decision_id

    def _gpu(self, gpu: GpuId) -> GpuObservation:
        held = gpu in self.pods or gpu in self.neighbours or gpu in self.unlabelled
        seen = replace(super()._gpu(gpu), worker=f"pod-on-{gpu}" if held else None)
        nameless = gpu in self.nameless and gpu in self.pods
        return replace(seen, deployment=None, pool=None, role=None, terminating=True) if nameless else seen

    def _carry_out(self, plan: Plan) -> None:
        self.under_way.append((self.now_s + self.lag_s, replace(plan, scaling=())))
        while self.under_way and self.under_way[0][0] <= self.now_s:
            _, due = self.under_way.pop(0)
            for order in due.power:
                self.caps.update(dict.fromkeys(order.released, CURVE.max_mw))
            super()._carry_out(due)
        super()._carry_out(replace(plan, power=()))
        self.most_mw = max(self.most_mw, self.drawn_mw())

    def drawn_mw(self) -> int:
        return sum(self.caps[gpu] for gpu in self.pods)

    def covered_and_held(self, gpu: GpuId) -> tuple[bool, bool]:
        """Whether the budget covers the GPU, and whether a pod of ours counts as holding it."""
        power = self.state.power[SITE]
        node = power.nodes[power.where[gpu]]
        index = node.cards.gpus.index(gpu)
        assert node.covered is not None
        return node.covered[index], node.held[index]

    def notes(self, plan: Plan) -> dict[ReasonCode, str]:
        return {note.reason: note.sentence for note in plan.sites[SITE].notes}

    def run(self, rate: float, ticks: int = 4) -> Plan:
        for _ in range(ticks):
            plan = self.tick(traffic(rate))
            self.pass_time(29.0)
        return plan


@pytest.mark.parametrize("budget_watts", [700, 1000, 1600, 2400])
def test_replicas_that_start_where_limits_are_highest_stay_within_the_budget(budget_watts: int) -> None:
    w = Contrary(workers_only(budget_watts * 1000))
    for rate in (2.0, 30.0, 6.0, 60.0, 1.0):
        w.run(rate)
        assert w.most_mw <= budget_watts * 1000
    assert w.published, "it scales"


def test_with_slow_agents_a_replica_that_starts_on_the_highest_limit_stays_within_the_budget() -> None:
    w = Contrary(workers_only(1_000_000), lag_s=2.0)
    for rate in (20.0, 1.0, 30.0, 0.5, 20.0):
        w.run(rate, ticks=3)
        for gpu in [gpu for gpu, held in w.pods.items() if held == DECODE][:1]:
            del w.pods[gpu]  # it ends, and another one starts at once on the GPU with the highest limit
            w.react()
            w.obey(w.published[-1])
            w.react()
    assert w.most_mw <= 1_000_000


def test_a_gpu_without_a_worker_costs_nothing_once_its_limit_was_read_back() -> None:
    """1 kW for eight GPUs of 200 W at least: covering all of them would be 600 W short."""
    w = Contrary(workers_only(1_000_000))
    plan = w.run(20.0, ticks=8)
    assert w.count(PREFILL) + w.count(DECODE) >= 2
    power = w.state.power[SITE]
    held = sum(w.caps[gpu] for gpu in w.pods)
    assert charged_mw(power) == held, "only the workers' GPUs are charged"
    assert plan.sites[SITE].shortfall_mw == 0
    assert "are outside the budget" in w.notes(w.react())[ReasonCode.OUTSIDE_BUDGET]


def freed_with_the_pod() -> int:
    """The milliwatts that come free at once with the end of a pod whose GPU still has its cap."""
    w = Contrary(workers_only(2_400_000), lag_s=2.0)
    w.run(40.0, ticks=6)
    running = len(w.pods)
    for _ in range(8):
        w.pass_time(29.0)
        before = charged_mw(w.state.power[SITE])
        w.tick(traffic(0.1))
        w.now_s += 0.5
        w.react()
        if len(w.pods) < running:
            return before - charged_mw(w.state.power[SITE])
    raise AssertionError("nothing was scaled down")


def test_a_gpu_leaves_after_its_pod_is_gone_and_its_limit_was_read_back() -> None:
    assert freed_with_the_pod() <= 0
    with patched(RELEASED_BEFORE_READBACK):
        assert freed_with_the_pod() >= CURVE.min_mw, "the check would not see it"


def test_before_a_scale_up_is_published_its_watts_are_reserved() -> None:
    w = Contrary(workers_only(1_600_000), obedient=False)
    for _ in range(6):
        w.tick(traffic(40.0))
        w.pass_time(29.0)
    assert w.published
    power = w.state.power[SITE]
    starting = sum(w.published[-1].replicas.values())
    assert power.pledged_gpus == starting
    assert charged_mw(power) + pledged_mw(power, w.config.sites[SITE]) >= starting * CURVE.min_mw
    assert "still to start" in w.notes(w.react())[ReasonCode.START_WATTS]


def test_a_gpu_that_another_s_pod_holds_is_left_to_it_and_counts_where_a_replica_may_land() -> None:
    w = Contrary(workers_only(1_000_000))
    w.neighbours = {GpuId("n0-g0"): OTHERS, GpuId("n0-g1"): OTHERS}
    w.run(20.0, ticks=6)
    assert w.caps[GpuId("n0-g0")] == CURVE.max_mw, "another's GPU is never capped"
    # One of ours might start there once it is free: at most one at a time fits beside a worker.
    w.neighbours.clear()
    w.run(40.0, ticks=6)
    assert w.most_mw <= 1_000_000
    assert w.caps[GpuId("n0-g0")] < CURVE.max_mw


def test_a_parked_gpu_that_another_s_pod_takes_is_given_back_once_and_stays_so() -> None:
    w = Contrary(workers_only(1_000_000))
    w.run(20.0, ticks=6)
    gpu = max(gpu for gpu in w.caps if gpu not in w.pods)
    assert w.caps[gpu] < CURVE.max_mw
    w.neighbours, sent, caps = {gpu: OTHERS}, len(w.power), set()
    for _ in range(10):
        w.pass_time(1.0)
        caps.add(w.caps[gpu])
    assert caps == {CURVE.max_mw}
    assert len(w.power) - sent <= 2, "what was given back is not taken again"


def test_a_worker_that_came_unannounced_is_charged_and_its_cause_is_named() -> None:
    w = Contrary(workers_only(1_000_000))
    w.run(10.0, ticks=6)
    free = [gpu for gpu in w.caps if gpu not in w.pods]
    before = len(w.power)
    for gpu in free[:3]:
        w.caps[gpu] = CURVE.max_mw  # as a driver leaves it
        w.pods[gpu] = DECODE
    w.now_s += 1.0
    plan = w.react()
    assert charged_mw(w.state.power[SITE]) > 1_000_000, "charged at its limit from its first report"
    assert "no decision started" in w.notes(plan)[ReasonCode.UNANNOUNCED]
    w.pass_time(10.0)
    cut = {reason.reason for order in w.power[before:] for reason in order.reasons}
    assert ReasonCode.UNANNOUNCED in cut
    least = len(w.pods) * CURVE.min_mw
    assert w.drawn_mw() <= max(1_000_000, least)


def test_where_no_watts_can_be_reserved_nothing_starts_and_the_reason_says_so() -> None:
    w = Contrary(workers_only(650_000))
    w.neighbours = {GpuId("n0-g0"): OTHERS}
    plan = w.run(20.0, ticks=3)
    assert not w.pods, "it could start where another's pod leaves: at 700 W"
    chains = [link.reason for each in plan.deployments[D].pools.values() for link in each.chain]
    assert ReasonCode.START_WATTS in chains, chains


def test_a_pod_that_was_deleted_by_force_and_still_runs_keeps_its_gpu_in_the_budget() -> None:
    """The API server does not list it any more, so its agent knows its name only."""
    w = Contrary(workers_only(1_000_000))
    w.run(20.0, ticks=6)
    gpu = min(w.pods)
    w.nameless = {gpu}
    w.pass_time(30.0)
    assert w.covered_and_held(gpu) == (True, True)
    assert w.caps[gpu] < CURVE.max_mw, "its limit is not given back"
    assert w.most_mw <= 1_000_000
    del w.pods[gpu]
    w.pass_time(30.0)
    assert not w.covered_and_held(gpu)[1]


def led_anew(w: Contrary) -> None:
    """Another leader takes over, with what the streams hold."""
    ledgers = [ledger for power in w.state.power.values() for ledger in power.nodes.values()]
    stored = [
        StoredCaps(
            ledger.node,
            ledger.next_id - 1,
            {gpu: GpuSetpoint(Milliwatts(w.caps[gpu])) for gpu in ledger.cards.gpus},
            dict(zip(ledger.cards.gpus, ledger.charge_mw, strict=True)),
            w.now_s,
            outside=frozenset(
                [gpu for gpu, counts in zip(ledger.cards.gpus, ledger.covered or (), strict=True) if not counts]
            ),
        )
        for ledger in ledgers
    ]
    flows = [(D, w.state.deployments[D].flow)]
    w.state = initial_state(w.config, epoch=2, now_s=w.now_s, last_decisions=flows, stored_caps=stored)


def report_late(w: Contrary, old: Observation, old_s: float) -> None:
    """Reports of agents that were there before the last restart arrive after a report of the agents of today."""
    w.late = {name: replace(node, age_s=w.now_s + 1.0 - old_s) for name, node in old.nodes.items()}
    w.pass_time(1.0)
    w.late = {}


@pytest.mark.parametrize(
    "happens",
    [
        "one report lacks the GPU",
        "another planner leads",
        "its agent restarts, and an old report comes late",
        "another planner leads, its agent restarts, and an old report comes first",
    ],
)
def test_a_pod_deleted_by_force_keeps_its_gpu_in_the_budget_although(happens: str) -> None:
    w = Contrary(workers_only(1_000_000))
    before, before_s = w.observation(None), w.now_s
    w.run(20.0, ticks=6)
    gpu = min(w.pods)
    if happens.endswith("comes late"):
        w.process = "machine/2"
        w.pass_time(1.0)
        report_late(w, before, before_s)
    w.nameless = {gpu}
    if happens == "another planner leads":
        led_anew(w)
    elif happens.endswith("comes first"):
        led_anew(w)
        report_late(w, before, before_s)
        w.process = "machine/2"
    elif happens == "one report lacks the GPU":
        w.unreported = {gpu}
        w.pass_time(2.0)
        w.unreported = set()
    w.pass_time(60.0)
    assert w.covered_and_held(gpu) == (True, True)
    assert w.most_mw <= 1_000_000
    del w.pods[gpu]
    w.pass_time(60.0)
    assert not w.covered_and_held(gpu)[1]


def test_a_pod_that_no_report_ever_showed_with_its_labels_counts_as_ours() -> None:
    """It was started and deleted by force before the agent reported, and another one was started in its place."""
    w = Contrary(workers_only(1_000_000))
    w.run(20.0, ticks=6)
    gpu = max(gpu for gpu in w.caps if gpu not in w.pods)
    w.nameless, w.pods[gpu] = {gpu}, DECODE
    w.pass_time(30.0)
    assert w.covered_and_held(gpu) == (True, True)
    del w.pods[gpu]
    w.pass_time(30.0)
    assert not w.covered_and_held(gpu)[1]


def test_another_s_pod_that_is_deleted_by_force_stays_another_s() -> None:
    w = Contrary(workers_only(1_000_000))
    w.run(20.0, ticks=6)
    gpu = max(gpu for gpu in w.caps if gpu not in w.pods)
    w.neighbours[gpu] = OTHERS
    w.pass_time(5.0)
    del w.neighbours[gpu]
    w.nameless, w.pods[gpu] = {gpu}, DECODE
    w.pass_time(5.0)
    assert not w.covered_and_held(gpu)[1]


def test_another_s_pod_that_its_agent_sees_before_the_api_server_lists_it_does_not_stay() -> None:
    """The kubelet assigns a GPU to a pod before the agent's watch shows it: nobody knows yet whose it is."""
    w = Contrary(workers_only(1_000_000))
    w.run(20.0, ticks=6)
    gpu = max(gpu for gpu in w.caps if gpu not in w.pods)
    w.nameless, w.pods[gpu] = {gpu}, DECODE
    w.pass_time(1.0)
    power = w.state.power[SITE]
    node, index = power.where[gpu], power.nodes[power.where[gpu]].cards.gpus.index(gpu)
    assert power.nodes[node].held[index], "it may be ours"
    del w.pods[gpu]
    w.nameless, w.unlabelled = set(), {gpu}
    w.pass_time(60.0)
    ledger = w.state.power[SITE].nodes[node]
    assert ledger.covered is not None
    assert (ledger.covered[index], ledger.held[index]) == (False, False)
    assert w.caps[gpu] == CURVE.max_mw, "its limit is given back"
