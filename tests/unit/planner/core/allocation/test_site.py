"""Power inside ``step`` and ``react``: watts before pods going up, pods before watts coming down, GPUs chosen once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.core.allocation.site import starting_part
from planner.core.placement import choose, keep, survey
from planner.core.power.brake import Brake
from planner.core.power.reservations import reserve_power
from planner.core.state import PoolGoal
from planner.domain.config import OperationMode, ScalingRules
from planner.domain.ids import GpuId, NodeId
from planner.domain.observation import BudgetCommand, GpuObservation, NodeObservation
from planner.domain.plan import Placement, Plan
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

AT_ONCE = ScalingRules(stabilization_window_s=0.0)
QUICK = {PREFILL: pool(PREFILL, scale_down=AT_ONCE), DECODE: pool(DECODE, scale_down=AT_ONCE)}


def world(budget_mw: int, **changes: Any) -> SmallSite:
    found = SmallSite(planner(deployment(QUICK, **changes), budget_mw=budget_mw), nodes=2, gpus_per_node=4)
    found.run_pods(prefill=1, decode=1)
    return found


def settled(found: SmallSite, rate: float, ticks: int = 3) -> Plan:
    for _ in range(ticks):
        plan = found.tick(traffic(rate))
        found.pass_time(30.0)
    return plan


def chain(plan: Plan, name: str = PREFILL) -> list[ReasonCode]:
    return [link.reason for link in plan.deployments[D].pools[name].chain]  # type: ignore[index]


def test_a_scale_up_goes_out_with_the_gpus_whose_watts_are_reserved() -> None:
    w = world(8 * CURVE.max_mw)
    settled(w, 1.0)
    plan = w.tick(traffic(40.0))
    (order,) = plan.scaling
    hinted = [gpu for hint in order.placements for gpu in hint.gpus]
    assert len(hinted) == sum(order.replicas.values()) - 2
    assert len(set(hinted)) == len(hinted)
    caps = {cap.gpu: cap.setpoint for sent in plan.power for cap in sent.caps}
    goals = {name: p.setpoint for name, p in plan.deployments[D].pools.items()}
    for hint in order.placements:
        assert all(caps[gpu] == goals[hint.pool] for gpu in hint.gpus)


def test_a_replica_does_not_wait_for_a_raise_below_the_site_s_smallest_step() -> None:
    w = world(8 * CURVE.max_mw)
    w.config = replace(w.config, sites={SITE: replace(w.config.sites[SITE], smallest_step_mw=Milliwatts(20_000))})
    settled(w, 1.0)
    known = w.state.deployments[D]
    goals = {**known.pending.goals, PREFILL: PoolGoal(3, GpuSetpoint(Milliwatts(CURVE.min_mw + 15_000)), 1.0)}
    state = replace(w.state, deployments={D: replace(known, pending=replace(known.pending, goals=goals))})
    reserved = reserve_power(state, w.config, w.config.clock(w.now_s))
    assert not [cap for order in reserved.power if order.raises for cap in order.caps]
    assert len(reserved.deployments[D].placements) == 2
    assert reserved.deployments[D].counts[PREFILL] == 3


def test_idle_gpus_are_parked_at_their_fallback() -> None:
    w = world(8 * CURVE.max_mw)
    settled(w, 1.0)
    free = [gpu for gpu in w.caps if gpu not in w.pods]
    assert free
    assert {w.caps[gpu] for gpu in free} == {CURVE.min_mw}


@pytest.mark.parametrize("budget_mw", [2_400_000, 3_200_000, 4_000_000, 5_600_000])
def test_caps_never_exceed_the_budget_and_counts_stay_affordable(budget_mw: int) -> None:
    w = world(budget_mw)
    for rate in (1.0, 10.0, 80.0, 200.0, 30.0, 1.0):
        for _ in range(3):
            plan = w.tick(traffic(rate))
            for _ in range(30):
                w.now_s += 1.0
                w.react()
                if w.now_s > 15.0:
                    assert sum(w.caps.values()) <= budget_mw
        assert plan.sites[SITE].charged_mw <= budget_mw
        for gpu, name in w.pods.items():
            assert w.caps[gpu] >= CURVE.min_mw, name


def test_too_few_watts_grant_less_and_give_the_reason() -> None:
    plan = settled(world(3_000_000), 200.0, 6)
    record = plan.deployments[D].pools[PREFILL]
    assert record.granted < record.wanted
    assert {ReasonCode.POWER_BUDGET, ReasonCode.POWER_PENDING, ReasonCode.NO_FREE_GPU, ReasonCode.SHORTFALL} & set(
        chain(plan)
    )


def test_a_decision_names_what_set_its_counts_and_not_what_follows_from_them() -> None:
    w = world(3_000_000)
    settled(w, 200.0, 6)
    reasons = [link.reason for order in w.published for link in order.reasons]
    assert reasons
    assert set(reasons) <= {ReasonCode.POWER_BUDGET, ReasonCode.GPU_BUDGET}


def test_pods_leave_before_their_watts_do() -> None:
    w = world(8 * CURVE.max_mw)
    settled(w, 80.0)
    w.obedient = False
    before = dict(w.caps)
    busy = dict(w.pods)
    settled(w, 1.0, 12)
    assert any(sum(order.replicas.values()) < len(busy) for order in w.published)
    assert all(w.caps[gpu] >= CURVE.useful_mw for gpu in busy), "the pods are still there"
    w.obey(w.published[-1])
    settled(w, 1.0)
    gone = [gpu for gpu in busy if gpu not in w.pods]
    assert gone
    assert all(w.caps[gpu] == CURVE.min_mw < before[gpu] for gpu in gone)


def test_a_budget_cut_between_ticks_lowers_caps_at_once() -> None:
    w = world(8 * CURVE.max_mw)
    settled(w, 80.0)
    w.now_s += 1.0
    plan = w.react(BudgetCommand(SITE, Milliwatts(2_400_000), w.now_s, sequence=1))
    assert plan.power
    assert not any(order.raises for order in plan.power)
    assert sum(w.caps.values()) <= 2_400_000
    assert plan.deployments == {}


def test_advisory_touches_neither_counts_nor_caps() -> None:
    w = world(8 * CURVE.max_mw, mode=OperationMode.ADVISORY)
    settled(w, 80.0)
    assert w.published == []
    assert set(w.caps.values()) == {CURVE.max_mw}


def test_a_scale_up_waits_for_watts_and_goes_out_between_ticks() -> None:
    """Everything is lent to decode: prefill's new GPUs get theirs only after decode's caps came down and settled."""
    w = world(8 * CURVE.max_mw)
    settled(w, 1.0)
    w.react(BudgetCommand(SITE, Milliwatts(2_300_000), w.now_s, until_s=w.now_s + 40.0, sequence=1))
    w.pass_time(5.0)
    held = w.tick(traffic(60.0))
    assert sum(p.granted for p in held.deployments[D].pools.values()) < sum(
        p.wanted for p in held.deployments[D].pools.values()
    )
    n = len(w.published)
    w.pass_time(30.0)
    w.tick(traffic(60.0))
    w.pass_time(30.0)
    w.tick(traffic(60.0))
    assert len(w.published) > n


def test_without_telemetry_there_are_counts_and_no_watts() -> None:
    w = SmallSite(planner(deployment(QUICK)))
    plan = w.tick(traffic(40.0))
    assert plan.scaling
    assert plan.power == ()
    assert plan.sites == {}
    assert plan.deployments[D].pools[PREFILL].setpoint is None


def test_the_record_has_watts_and_joules() -> None:
    record = settled(world(8 * CURVE.max_mw), 20.0).deployments[D]
    assert record.expected_watts is not None
    assert 2 * 80.0 < record.expected_watts < 8 * 700.0
    assert record.expected_joules_per_token is not None
    assert record.expected_joules_per_token == pytest.approx(record.expected_watts / (20.0 * 150.0), rel=0.01)


def test_the_next_event_is_known() -> None:
    w = world(8 * CURVE.max_mw)
    plan = w.tick(traffic(1.0))
    assert plan.next_event_s is not None
    assert plan.next_event_s > w.now_s


def node(name: str, free: int, held: int = 0, sick: int = 0) -> NodeObservation:
    def gpu(i: int) -> GpuObservation:
        used = free <= i < free + held
        return GpuObservation(
            GpuId(f"{name}{i}"),
            None,
            None,
            None,
            700_000,
            200_000,
            700_000,
            healthy=i < free + held,
            deployment=D if used else None,
            pool=PREFILL if used else None,
        )

    gpus = [gpu(i) for i in range(free + held + sick)]
    return NodeObservation(NodeId(name), {g.gpu: g for g in gpus})


def test_new_replicas_go_to_the_fullest_node_with_room_and_never_across_nodes() -> None:
    inventory = survey([node("a", 4), node("b", 2, held=2), node("c", 1, held=3, sick=2)])
    chosen = choose(inventory, PREFILL, 2, 5)
    assert [hint.node for hint in chosen] == ["b", "a", "a"]
    assert all(len(hint.gpus) == 2 for hint in chosen)


def test_a_silent_node_keeps_its_pods_and_gets_no_new_ones() -> None:
    inventory = survey([node("a", 4, held=2), node("b", 3)], {NodeId("a")})
    assert len(inventory.held[D, PREFILL]) == 2
    assert set(inventory.free) == {"b"}


def test_an_agent_that_falls_silent_takes_no_replica_away() -> None:
    w = world(8 * CURVE.max_mw)
    counts = {name: p.granted for name, p in settled(w, 60.0).deployments[D].pools.items()}
    n = len(w.published)
    w.nodes = 1  # the second node's agent reports nothing more; its pods run on
    for _ in range(20):
        plan = w.tick(traffic(60.0))
        w.pass_time(30.0)
    assert {name: p.granted for name, p in plan.deployments[D].pools.items()} == counts
    assert len(w.published) == n


def test_a_choice_stands_until_its_gpu_is_taken() -> None:
    earlier = [Placement(PREFILL, NodeId("a"), (GpuId("a2"),)), Placement(PREFILL, NodeId("b"), (GpuId("b3"),))]
    inventory = survey([node("a", 4), node("b", 2, held=2)])
    assert keep(inventory, earlier, 5) == earlier[:1]
    assert GpuId("a2") not in inventory.without(earlier[:1]).free[NodeId("a")]
    assert keep(survey([node("a", 4)]), earlier, 0) == []


def test_a_wait_for_watts_is_not_reported_as_nothing_needed() -> None:
    w = world(8 * CURVE.max_mw)
    settled(w, 1.0)
    w.state = replace(w.state, power={site: replace(p, raises_from_s=1e9) for site, p in w.state.power.items()})
    plan = w.tick(traffic(40.0))
    assert chain(plan)[-1] is ReasonCode.POWER_PENDING
    assert all(note.reason is not ReasonCode.STEADY for note in plan.deployments[D].notes)


def test_the_brake_lowers_caps_and_gives_up_no_replica() -> None:
    """Every GPU serves at the lowest useful cap and the budget is used up: any watt withheld is too much for floors."""
    w = SmallSite(planner(deployment(QUICK, max_gpus=8), budget_mw=8 * CURVE.useful_mw), nodes=2, gpus_per_node=4)
    w.run_pods(prefill=6, decode=2)
    settled(w, 60.0)
    running = {name: w.count(name) for name in (PREFILL, DECODE)}
    assert sum(running.values()) == 8
    power = replace(w.state.power[SITE], brake=Brake(held_mw=300, pressed_s=w.now_s))
    w.state = replace(w.state, power={SITE: power})
    plan = w.tick(traffic(60.0))
    assert not plan.scaling
    assert {name: p.granted for name, p in plan.deployments[D].pools.items()} == running
    assert sum(sum(ledger.caps_mw or ()) for ledger in w.state.power[SITE].nodes.values()) <= 8 * CURVE.useful_mw - 300


@pytest.mark.parametrize(
    ("startup_s", "interval_s", "part"),
    [(0.0, 30.0, 0.0), (60.0, 30.0, 2 / 3), (60.0, 5.0, 2 / 3), (60.0, 60.0, 0.5), (10.0, 30.0, 0.25)],
)
def test_an_option_is_scored_until_the_next_change_can_help(startup_s: float, interval_s: float, part: float) -> None:
    assert starting_part(startup_s, interval_s) == pytest.approx(part)
