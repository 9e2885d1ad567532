"""Between domain and wire: what goes out and comes back is the same, and never a milliwatt more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas import codec, v1
from planner.adapters import from_wire, to_wire
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId, SiteId
from planner.domain.plan import (
    DeploymentPlan,
    Forecast,
    GpuCapTarget,
    Limited,
    Placement,
    PoolPlan,
    PowerDecision,
    ScalingDecision,
    SitePlan,
)
from planner.domain.pool import Role
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts
from tests.integration.planner.stage import DECODE, NAME, PREFILL, SITE, config

AT = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
watts = st.integers(0, 2_000_000)
caps = st.builds(
    GpuCapTarget,
    gpu=st.integers(0, 99).map(lambda n: GpuId(f"GPU-{n}")),
    setpoint=watts.map(lambda mw: GpuSetpoint(Milliwatts(mw))),
    fallback_mw=watts,
    charged_mw=watts,
    highest_mw=watts,
)


def over_the_wire(message: v1.Message) -> v1.Message:
    return codec.decode(codec.encode(message))


@given(st.lists(caps, max_size=8, unique_by=lambda cap: cap.gpu), st.integers(0, 2**40))
def test_a_next_leader_finds_the_ledger_exactly(orders: list[GpuCapTarget], decision_id: int) -> None:
    order = PowerDecision(NodeId("node-1"), decision_id, tuple(orders), 30.0, raises=True)
    site = SitePlan(SITE, Milliwatts(4_000_000), Milliwatts(0), Milliwatts(0), None, Milliwatts(0))
    sent = over_the_wire(to_wire.power_decision(order, site, epoch=3, incarnation="i", at=AT))
    assert isinstance(sent, v1.PowerDecision)
    stored = from_wire.stored_caps(sent)
    assert stored.decision_id == decision_id
    assert stored.setpoints == {cap.gpu: cap.setpoint for cap in orders}
    assert stored.charged_mw == {cap.gpu: cap.charged_mw for cap in orders}
    assert stored.highest_mw == {cap.gpu: cap.highest_mw for cap in orders}
    assert sent.budget_watts == 4000.0


def test_the_round_trip_of_caps_above_knows_every_knob_of_a_setpoint() -> None:
    assert GpuSetpoint._fields == ("cap_mw",), "a new knob needs a field of the message: see CONTRIBUTING"


def test_scaling_says_both_vocabularies() -> None:
    order = ScalingDecision(
        NAME,
        5,
        {PREFILL: 2, DECODE: 3},
        {PREFILL: Role.PREFILL, DECODE: Role.DECODE},
        (Placement(DECODE, NodeId("node-1"), (GpuId("GPU-1"),)),),
        (Limited(3, ReasonCode.SLA, "three are needed"),),
    )
    deployment = config().deployments[NAME]
    sent = over_the_wire(to_wire.scaling_decision(order, deployment, epoch=3, incarnation="i", at=AT))
    assert isinstance(sent, v1.ScalingDecision)
    assert (sent.num_prefill_workers, sent.num_decode_workers) == (2, 3)
    assert sent.pools[DECODE].replicas == 3
    assert sent.placements[0].gpus == ("GPU-1",)
    name, last = from_wire.last_decision(sent, None)
    assert name == sent.deployment
    assert (last.decision_id, last.published, last.scaled_decision_id) == (5, {PREFILL: 2, DECODE: 3}, -1)


def test_a_next_leader_finds_what_may_still_start_and_what_is_outside_the_budget() -> None:
    """Where a budget covers workers only; where it covers all GPUs the fields are left out."""
    roles = {PREFILL: Role.PREFILL, DECODE: Role.DECODE}
    order = ScalingDecision(NAME, 5, {PREFILL: 2, DECODE: 3}, roles, at_most={PREFILL: 2, DECODE: 4}, kept={DECODE: 1})
    deployment = config().deployments[NAME]
    sent = over_the_wire(to_wire.scaling_decision(order, deployment, epoch=3, incarnation="i", at=AT))
    assert isinstance(sent, v1.ScalingDecision)
    _, last = from_wire.last_decision(sent, None)
    assert (last.starts.at_most, last.starts.kept, last.starts.old) == (
        {PREFILL: 2, DECODE: 4},
        {DECODE: 1},
        None,
    )
    assert not last.starts.unstated
    within = GpuCapTarget(GpuId("GPU-1"), GpuSetpoint(Milliwatts(300_000)), 200_000, 300_000, 700_000)
    beyond = within._replace(gpu=GpuId("GPU-2"), outside=True)
    power = PowerDecision(NodeId("node-1"), 7, (within, beyond), 30.0, raises=True, released=(GpuId("GPU-3"),))
    stored = over_the_wire(to_wire.power_decision(power, None, epoch=3, incarnation="i", at=AT))
    assert isinstance(stored, v1.PowerDecision)
    assert from_wire.stored_caps(stored).outside == {GpuId("GPU-2")}
    assert stored.released_gpus == ("GPU-3",)
    plain = to_wire.scaling_decision(replace(order, at_most={}, kept={}), deployment, epoch=3, incarnation="i", at=AT)
    assert not {b"at_most", b"kept_gpus"} & set(codec.encode(plain).split(b'"')), "as every reader of today knows it"
    _, last = from_wire.last_decision(plain, None)
    assert last.starts.unstated, "any number may still start"


def test_a_pool_that_is_not_there_is_not_set() -> None:
    """Aggregated workers count as decode workers, as in Dynamo; -1 says that there is no such role."""
    pool = PoolId("all")
    order = ScalingDecision(NAME, 0, {pool: 4}, {pool: Role.AGGREGATED})
    sent = to_wire.scaling_decision(order, config().deployments[NAME], epoch=1, incarnation="i", at=AT)
    assert (sent.num_prefill_workers, sent.num_decode_workers) == (-1, 4)


@pytest.mark.parametrize(("incarnation", "scaled"), [("i", 5), ("", 5), ("before", -1)])
def test_an_acknowledgement_of_another_incarnation_proves_nothing(incarnation: str, scaled: int) -> None:
    decision = v1.ScalingDecision(time=AT, deployment=NAME, decision_id=6, incarnation="i", epoch=1)
    ack = v1.ScalingAck(
        time=AT,
        deployment=NAME,
        decision_id=5,
        scaled_decision_id=5,
        incarnation=incarnation,
        status=v1.AckStatus.APPLIED,
    )
    assert from_wire.last_decision(decision, ack)[1].scaled_decision_id == scaled


def test_a_budget_holds_from_when_it_says_or_from_when_it_was_written() -> None:
    offset_s = 1_000_000.0
    plain = v1.BudgetChange(time=AT, site="row-1", budget_watts=1234.5678)
    order = from_wire.budget_command(plain, sequence=9, clock_offset_s=offset_s)
    assert order.from_s == AT.timestamp() - offset_s
    assert (order.until_s, order.budget_mw, order.sequence) == (None, 1_234_567, 9)
    later = plain.model_copy(
        update={"effective_from": AT + timedelta(hours=1), "effective_until": AT + timedelta(hours=2), "ramp_s": 60.0}
    )
    order = from_wire.budget_command(later, sequence=10)
    assert order.until_s is not None
    assert (order.until_s - order.from_s, order.ramp_s) == (3600.0, 60.0)


def test_a_record_holds_the_whole_chain_and_leaves_out_what_is_unknown() -> None:
    chain = (Limited(4, ReasonCode.SLA, "four"), Limited(3, ReasonCode.MAX_REPLICAS, "three at most"))
    plan = DeploymentPlan(
        NAME,
        {PREFILL: PoolPlan(PREFILL, Role.PREFILL, 1, 4, 3, GpuSetpoint(Milliwatts(500_000)), chain, 0.5)},
        observed={"requests": 10.0, "ttft_ms": None},
        missing={"ttft_ms": "no_data"},
        forecasts={"request_rate_per_s": Forecast(1.0, 2.0, 0.5, 30.0, "ewma")},
        notes=(Limited(0, ReasonCode.STEADY, "steady"),),
    )
    site = SitePlan(
        SiteId("row-1"),
        Milliwatts(4_000_000),
        Milliwatts(3_000_000),
        Milliwatts(2_900_000),
        None,
        Milliwatts(1_000_000),
    )
    record = over_the_wire(
        to_wire.plan_record(plan, config().deployments[NAME], site, decision_id=2, scaled_decision_id=1, at=AT)
    )
    assert isinstance(record, v1.PlanRecord)
    pool = record.pools[PREFILL]
    assert [reason.code for reason in pool.chain] == ["sla", "max_replicas"]
    assert (pool.values, pool.cap_watts) == ((4, 3), 500.0)
    assert record.observed == {"requests": 10.0}
    assert record.missing == {"ttft_ms": "no_data"}
    assert record.draw_watts is None
    assert record.expected == {"shortfall": 0.0}
    assert DeploymentId(record.deployment) == NAME
    assert record.load_time_scale is None


def test_a_record_of_a_replayed_load_says_how_fast_it_ran() -> None:
    plan, one = DeploymentPlan(NAME, {}), config().deployments[NAME]
    record = to_wire.plan_record(plan, one, None, decision_id=2, scaled_decision_id=1, at=AT, load_time_scale=60.0)
    assert over_the_wire(record) == record
    assert record.load_time_scale == 60.0
