"""Holds on GPUs that no pool has: granted in whole beside what pools want or not at all, and gone when they end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core import gpu_holds
from planner.core.intake import initial_state
from planner.core.power import site_ledger
from planner.core.power.site_state import charged_mw
from planner.domain.config import Covers
from planner.domain.ids import GpuId, NodeId
from planner.domain.observation import BudgetCommand, DeploymentObservation, HoldCommand, Observation, StoredCaps
from planner.domain.plan import PowerDecision
from planner.domain.units import GpuSetpoint, Milliwatts
from tests.unit.planner.core.power.ledger_fixture import CONFIG, HIGH, LOW, A, Desk, at, g, seen
from tests.unit.planner.core.small_site import SITE, D, SmallSite, planner, traffic

N0 = NodeId("n0")


@dataclass
class HeldSite(SmallSite):
    """The small site with a profiler's commands on its bus."""

    commands: list[HoldCommand] = field(default_factory=list)
    history: list[HoldCommand] = field(default_factory=list)

    def observation(self, seen: DeploymentObservation | None, budget: BudgetCommand | None = None) -> Observation:
        fresh, self.commands = tuple(self.commands), []
        self.history += fresh
        return replace(super().observation(seen, budget), hold_commands=fresh)

    def hold(self, watts: int, *gpus: GpuId, hold_id: str = "h", for_s: float = 30.0, release: bool = False) -> None:
        number = len(self.history) + len(self.commands)
        cap = Milliwatts(watts * 1000)
        self.commands.append(HoldCommand(N0, hold_id, gpus, cap, self.now_s, for_s, number, release))

    def outcome(self, hold_id: str = "h") -> str:
        return self.state.power[SITE].hold_outcomes[hold_id].reason

    @property
    def free(self) -> list[GpuId]:
        return [gpu for gpu in self.caps if gpu not in self.pods]


def at_rest(budget_mw: int = 6_000_000) -> HeldSite:
    """One prefill and one decode replica at work; the other six GPUs are parked."""
    site = HeldSite(planner(budget_mw=budget_mw))
    for _ in range(4):
        site.tick(traffic(1.0))
        site.pass_time(29.0)
        site.now_s += 1.0
    return site


def test_a_hold_is_granted_between_ticks_and_parked_again_when_it_ends() -> None:
    site = at_rest()
    before = dict(site.caps)
    gpu = site.free[-1]
    site.hold(500, gpu)
    site.pass_time(5.0)
    assert site.caps == {**before, gpu: 500_000}
    assert site.outcome() == "gpu_held"
    site.hold(400, gpu)
    site.pass_time(5.0)
    assert site.caps[gpu] == 400_000
    site.pass_time(31.0)
    assert site.caps == before
    assert not site.state.power[SITE].holds
    assert not site.state.power[SITE].hold_outcomes


def test_a_renewed_hold_stays_and_its_release_ends_it_at_once() -> None:
    site = at_rest()
    before, gpu = dict(site.caps), site.free[-1]
    for _ in range(6):
        site.hold(500, gpu)
        site.pass_time(10.0)
        assert site.caps[gpu] == 500_000
    site.hold(500, gpu, release=True)
    site.pass_time(5.0)
    assert site.caps == before


def test_what_the_budget_cannot_carry_waits_in_whole_and_decision_and_notes_state_it() -> None:
    site = at_rest()
    needed = sum(site.caps[gpu] for gpu in site.pods) + 200_000 * (len(site.free) - 2) + 2 * 600_000
    site.pass_time(1.0)
    site.react(BudgetCommand(SITE, Milliwatts(needed - 50_000), site.now_s, None, 0.0, 1))
    site.pass_time(20.0)
    before, gpus = dict(site.caps), site.free[-2:]
    site.power.clear()
    site.hold(600, *gpus)
    plan = site.react()
    assert site.outcome() == "hold_waits"
    assert site.caps == before
    (decision,) = site.power
    assert "50 W are missing beside what pools want and parked GPUs keep" in decision.reasons[-1].sentence
    assert decision.reasons[-1] in plan.sites[SITE].notes
    site.hold(570, *gpus)
    site.pass_time(6.0)
    assert site.outcome() == "gpu_held"
    assert {site.caps[gpu] for gpu in gpus} == {570_000}


def test_a_new_leader_reads_the_commands_again_and_keeps_the_cap() -> None:
    site = at_rest()
    gpu = site.free[-1]
    site.hold(500, gpu, for_s=60.0)
    site.pass_time(5.0)
    last: dict[NodeId, PowerDecision] = {order.node: order for order in site.power}
    stored = [
        StoredCaps(
            order.node,
            order.decision_id,
            {cap.gpu: cap.setpoint for cap in order.caps},
            {cap.gpu: cap.charged_mw or cap.setpoint.cap_mw for cap in order.caps},
        )
        for order in last.values()
    ]
    site.state = initial_state(site.config, 2, site.now_s, [(D, site.state.deployments[D].flow)], stored)
    site.commands = list(site.history)
    site.tick(traffic(1.0))
    site.pass_time(3.0)
    assert site.state.power[SITE].holds
    assert site.caps[gpu] == 500_000


def test_pools_come_first_a_gpu_that_one_needs_ends_the_hold() -> None:
    site = at_rest(20_000_000)
    held = site.free
    site.hold(300, *held, for_s=600.0)
    site.pass_time(5.0)
    assert site.outcome() == "gpu_held"
    while site.outcome() == "gpu_held" and site.now_s < 1500.0:
        site.tick(traffic(60.0))
        site.pass_time(29.0)
        site.now_s += 1.0
    assert site.outcome() == "hold_refused"
    assert len(site.pods) > 2


def test_free_gpus_that_no_hold_has_are_taken_first() -> None:
    site = at_rest(20_000_000)
    before, held = len(site.pods), site.free[:1]
    site.hold(300, *held, for_s=600.0)
    site.pass_time(5.0)
    while len(site.pods) == before and site.now_s < 1500.0:
        site.tick(traffic(16.0))
        site.pass_time(29.0)
        site.now_s += 1.0
    assert before < len(site.pods) < 8
    assert held[0] not in site.pods
    assert site.outcome() == "gpu_held"


@pytest.mark.parametrize("who", ["pool", "unknown", "other hold", "nothing", "no watts"])
def test_what_may_not_be_held_is_refused_by_name_and_changes_nothing(who: str) -> None:
    site = at_rest()
    free = site.free[-1]
    site.hold(300, free, hold_id="first")
    site.pass_time(5.0)
    before = dict(site.caps)
    gpus = {
        "pool": (site.free[0], next(iter(site.pods))),
        "unknown": (site.free[0], GpuId("GPU-of-nobody")),
        "other hold": (site.free[0], free),
        "nothing": (),
        "no watts": (site.free[0],),
    }[who]
    site.hold(0 if who == "no watts" else 500, *gpus)
    plan = site.react()
    words = {
        "pool": f"GPU {gpus[-1] if gpus else ''}: a pod of {D} holds it",
        "unknown": "node n0 has no GPU GPU-of-nobody",
        "other hold": f"GPU {free}: hold first has it",
    }.get(who, "it names no GPU or no watts")
    assert site.outcome() == "hold_refused"
    assert any(note.sentence.endswith(words) for note in plan.sites[SITE].notes)
    site.pass_time(5.0)
    assert site.caps == before


def test_a_clock_that_is_fast_prolongs_nothing_and_old_commands_do_not_come_back() -> None:
    site = at_rest()
    gpu = site.free[-1]
    ahead = HoldCommand(N0, "h", (gpu,), Milliwatts(500_000), site.now_s + 3600.0, 10.0, 0)
    site.commands.append(ahead)
    site.pass_time(5.0)
    assert site.caps[gpu] == 500_000
    site.pass_time(10.0)
    assert site.caps[gpu] == 200_000
    site.commands.append(ahead)  # as after a step that failed
    site.pass_time(5.0)
    assert site.caps[gpu] == 200_000


def test_where_the_budget_covers_workers_only_a_held_gpu_is_covered_while_it_is_held() -> None:
    config = planner(budget_mw=6_000_000)
    workers = replace(
        config.sites[SITE], covers=Covers.WORKERS, deployments=frozenset({D}), expected_gpus=8, expected_nodes=1
    )
    site = HeldSite(replace(config, sites={SITE: workers}))
    for _ in range(4):
        site.tick(traffic(1.0))
        site.pass_time(30.0)
    gpu = site.free[-1]
    at_first = charged_mw(site.state.power[SITE])
    site.hold(500, gpu)
    site.pass_time(8.0)
    assert site.caps[gpu] == 500_000
    assert charged_mw(site.state.power[SITE]) >= at_first + 500_000
    site.pass_time(40.0)
    assert site.caps[gpu] < 500_000
    assert charged_mw(site.state.power[SITE]) == at_first


GPUS = [g("a", n) for n in range(4)]
caps = st.integers(LOW // 2, HIGH + 100_000)
events = st.one_of(
    st.tuples(st.just("hold"), st.integers(0, 3), st.sets(st.sampled_from(GPUS), min_size=1), caps, st.floats(1, 40)),
    st.tuples(st.just("release"), st.integers(0, 3)),
    st.tuples(st.just("time"), st.floats(0.0, 20.0)),
    st.tuples(st.just("want"), st.dictionaries(st.sampled_from(GPUS), st.integers(LOW, HIGH))),
    st.tuples(st.just("advance")),
)


@given(st.lists(events, max_size=25), st.integers(4 * LOW, 4 * HIGH))
def test_no_sequence_of_holds_is_granted_above_the_budget_and_ended_ones_leave_no_trace(
    steps: list[tuple[object, ...]], budget_mw: int
) -> None:
    desk = Desk(replace(CONFIG, budget_mw=Milliwatts(budget_mw), stale_s=1e9, answer_s=1e9))
    desk.receive(seen("a", (LOW,) * 4, desk.now_s))
    pools: Mapping[GpuId, GpuSetpoint] = {}
    number, names = 0, ["h0", "h1", "h2", "h3"]
    for kind, *rest in steps:
        commands: tuple[HoldCommand, ...] = ()
        if kind in {"hold", "release"}:
            number += 1
            name = names[rest[0]]  # type: ignore[call-overload]
            if kind == "hold":
                held, cap, for_s = rest[1:]
                commands = (HoldCommand(A, name, tuple(sorted(held)), Milliwatts(cap), desk.now_s, for_s, number),)  # type: ignore[call-overload, arg-type]
            else:
                commands = (HoldCommand(A, name, (), Milliwatts(0), desk.now_s, 1.0, number, release=True),)
        elif kind == "want":
            pools = {gpu: at(mw) for gpu, mw in rest[0].items()}  # type: ignore[attr-defined]
        elif kind == "time":
            desk.now_s += rest[0]  # type: ignore[operator]
        desk.power = gpu_holds.absorbed(desk.power, commands, desk.config, desk.now_s)
        judge(desk, pools)
        if kind == "advance":
            desk.advance(0.1)
            assert charged_mw(desk.power) <= max(budget_mw, 4 * HIGH if desk.power.over_since_s else 0)
    desk.now_s += 41.0
    desk.power = gpu_holds.absorbed(desk.power, (), desk.config, desk.now_s)
    assert judge(desk, pools) == pools


def judge(desk: Desk, pools: Mapping[GpuId, GpuSetpoint]) -> Mapping[GpuId, GpuSetpoint]:
    """What the ledger is asked for now: all that pools want, and holds only where everything fits in whole."""
    found = gpu_holds.judged(desk.power, pools, desk.config, desk.now_s)
    assert {gpu: found.setpoints[gpu] for gpu in pools} == pools
    assert found.outcomes.keys() == {hold.hold_id for hold in desk.power.holds}
    granted = [hold for hold in desk.power.holds if found.outcomes[hold.hold_id].reason == "gpu_held"]
    assert {*pools, *(gpu for hold in granted for gpu in hold.gpus)} == set(found.setpoints)
    if granted:
        wanted = [found.setpoints.get(gpu) for gpu in GPUS]
        total = sum(LOW if want is None else min(max(want.cap_mw, LOW), HIGH) for want in wanted)
        assert total <= desk.config.budget_mw
    desk.power = site_ledger.want(replace(desk.power, hold_outcomes=found.outcomes), found.setpoints)
    return found.setpoints
