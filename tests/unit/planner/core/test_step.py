"""The decision flow of ``step`` without power: changes, readiness, time-outs, holds, orders, modes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.intake import initial_state
from planner.core.state import Flow, PlannerState
from planner.core.step import step
from planner.domain.config import (
    DeploymentConfig,
    Fallback,
    LoadThresholds,
    OperationMode,
    PlannerConfig,
    ScalingRules,
    SizingMode,
    WaitFor,
)
from planner.domain.daily_window import ReplicaSchedule, ReplicaWindow
from planner.domain.ids import PoolId
from planner.domain.observation import (
    DeploymentCommand,
    DeploymentObservation,
    Observation,
    PoolObservation,
    ScalingAckSeen,
)
from planner.domain.plan import Plan
from planner.domain.pool import Replicas, Role
from planner.domain.reading import Missing, MissingReason, Sample
from planner.domain.reasons import ReasonCode
from tests.unit.planner.core.small_site import DECODE, PREFILL, D, deployment, planner, pool, traffic

AT_ONCE = ScalingRules(stabilization_window_s=0.0)
QUICK = {PREFILL: pool(PREFILL, scale_down=AT_ONCE), DECODE: pool(DECODE, scale_down=AT_ONCE)}


class Drive:
    """``step`` at 30 s intervals; decisions are carried out at once unless ``acknowledges`` is off."""

    def __init__(self, config: PlannerConfig, state: PlannerState | None = None) -> None:
        self.config = config
        self.state = state or initial_state(config, 1, 0.0, (), ())
        self.now_s = 0.0
        self.acknowledges = True

    def __call__(self, seen: DeploymentObservation | None, *orders: DeploymentCommand) -> Plan:
        known = self.state.deployments[D]
        done = known.flow.decision_id if self.acknowledges else known.flow.scaled_decision_id
        observation = Observation(
            {D: seen} if seen is not None else {},
            scaling_acks={D: ScalingAckSeen(D, known.flow.decision_id, done, "applied")},
            deployment_commands=orders,
        )
        self.state, plan = step(self.state, observation, self.config, self.config.clock(self.now_s))
        self.now_s += 30.0
        return plan


def granted(plan: Plan) -> tuple[int, int]:
    pools = plan.deployments[D].pools
    return pools[PREFILL].granted, pools[DECODE].granted


def reasons(plan: Plan, name: str = PREFILL) -> list[ReasonCode]:
    return [link.reason for link in plan.deployments[D].pools[name].chain]  # type: ignore[index]


def notes(plan: Plan) -> dict[ReasonCode, str]:
    return {note.reason: note.sentence for note in plan.deployments[D].notes}


def running(prefill: int, decode: int, at_prefill: PoolObservation | None = None) -> dict[PoolId, PoolObservation]:
    return {PREFILL: at_prefill or PoolObservation(Replicas(prefill)), DECODE: PoolObservation(Replicas(decode))}


def drive(one: DeploymentConfig | None = None) -> Drive:
    return Drive(planner(one or deployment(QUICK)))


def test_a_change_is_published_once_and_no_change_says_so() -> None:
    d = drive()
    first = d(traffic(40.0))
    assert [order.decision_id for order in first.scaling] == [0]
    assert first.scaling[0].replicas == {PREFILL: granted(first)[0], DECODE: granted(first)[1]}
    assert first.scaling[0].roles == {PREFILL: Role.PREFILL, DECODE: Role.DECODE}
    assert {link.reason for link in first.scaling[0].reasons} == {ReasonCode.SLA}
    second = d(traffic(40.0))
    assert second.scaling == ()
    assert notes(second)[ReasonCode.STEADY] == "No scaling needed (prefill={}, decode={})".format(*granted(first))


def test_no_newer_decision_while_one_is_carried_out_where_that_is_waited_for() -> None:
    d = drive(deployment(QUICK, wait_for=WaitFor.COMPLETE))
    d(traffic(40.0))
    d.acknowledges = False
    held = d(traffic(200.0))
    assert held.scaling == ()
    assert not held.deployments[D].ready
    assert reasons(held)[-1] is ReasonCode.SCALING_IN_PROGRESS
    d.acknowledges = True
    assert d(traffic(200.0)).scaling[0].decision_id == 1


def test_a_decision_that_is_never_carried_out_is_waited_for_and_then_passed_over_aloud() -> None:
    d = drive(deployment(QUICK, wait_for=WaitFor.COMPLETE, scaling_timeout_s=1800.0))
    d(traffic(40.0))
    d.acknowledges = False
    while d.now_s < 1800.0:
        assert d(traffic(200.0)).scaling == ()
    late = d(traffic(200.0))
    assert late.scaling[0].decision_id == 1
    assert ReasonCode.SCALING_TIMEOUT in notes(late)


def test_a_newer_decision_takes_the_place_of_one_that_is_still_carried_out() -> None:
    d = drive(deployment(QUICK))
    d(traffic(40.0))
    d.acknowledges = False
    ids = [order.decision_id for load in (200.0, 200.0, 40.0, 200.0) for order in d(traffic(load)).scaling]
    assert ids[0] == 1
    assert ids == list(range(1, len(ids) + 1))
    d.now_s += 1800.0
    assert ReasonCode.SCALING_TIMEOUT not in notes(d(traffic(200.0)))


def test_a_reading_that_failed_is_no_empty_engine() -> None:
    """Sequences in flight that were not seen for a tick must not look like a flood at the next."""
    full = running(2, 2) | {DECODE: PoolObservation(Replicas(2), running_requests=Sample(200.0))}
    d, calm = drive(), drive()
    for gone in (False, False, True, False):
        d(None if gone else replace(traffic(40.0), pools=full))
        calm(replace(traffic(40.0), pools=full))
    one, other = (each.state.deployments[D].pending.why for each in (d, calm))
    assert one == other
    assert granted(d(replace(traffic(40.0), pools=full))) == granted(calm(replace(traffic(40.0), pools=full)))


@settings(max_examples=40, deadline=None)
@given(
    wait=st.sampled_from([WaitFor.NOTHING, WaitFor.COMPLETE]),
    loads=st.lists(st.tuples(st.floats(1.0, 300.0), st.booleans()), min_size=2, max_size=30),
    timeout_s=st.sampled_from([60.0, 300.0, 1800.0]),
)
def test_waiting_or_not_ids_rise_one_by_one_and_only_waiting_holds(
    wait: WaitFor, loads: list[tuple[float, bool]], timeout_s: float
) -> None:
    """With waiting no decision leaves before the last was acknowledged or timed out; without, at once."""
    d = drive(deployment(QUICK, wait_for=wait, scaling_timeout_s=timeout_s))
    waits = wait is WaitFor.COMPLETE
    next_id, decided_s, done = 0, 0.0, True
    for load, acknowledges in loads:
        d.acknowledges = acknowledges
        done = done or acknowledges
        now_s = d.now_s
        plan = d(traffic(load))
        why = {reason for name in (PREFILL, DECODE) for reason in reasons(plan, name)}
        if not waits:
            assert ReasonCode.SCALING_IN_PROGRESS not in why
        for order in plan.scaling:
            assert order.decision_id == next_id
            assert not waits or done or now_s - decided_s >= timeout_s
            next_id, decided_s, done = next_id + 1, now_s, False


def test_an_acknowledgement_of_a_decision_that_was_never_made_counts_until_the_next_answer() -> None:
    d = drive()
    d(traffic(40.0))
    state, _ = step(
        d.state, Observation(scaling_acks={D: ScalingAckSeen(D, 999, 999, "applied")}), d.config, d.config.clock(30.0)
    )
    assert state.deployments[D].flow.scaled_decision_id == 999
    assert state.deployments[D].flow.ready
    for late in (0, -1):
        state, _ = step(
            state, Observation(scaling_acks={D: ScalingAckSeen(D, 0, late, "applied")}), d.config, d.config.clock(60.0)
        )
        assert state.deployments[D].flow.scaled_decision_id == 0
        assert state.deployments[D].flow.ready


def test_a_restart_goes_on_where_the_streams_left_off() -> None:
    config = planner(deployment(QUICK))
    state = initial_state(config, 2, 0.0, [(D, Flow(7, {PREFILL: 3, DECODE: 2}, scaled_decision_id=7))], ())
    d = Drive(config, state)
    plan = d(traffic(200.0))
    assert {name: p.current for name, p in plan.deployments[D].pools.items()} == {PREFILL: 3, DECODE: 2}
    assert plan.scaling[0].decision_id == 8


def test_missing_metrics_hold_forever_unless_configured_otherwise() -> None:
    d = drive()
    before = granted(d(traffic(40.0)))
    for _ in range(40):
        plan = d(traffic(None))
        assert granted(plan) == before
        assert plan.scaling == ()
    assert reasons(plan) == [ReasonCode.METRICS_MISSING]
    assert plan.deployments[D].missing["requests"] == "no_data"
    assert granted(d(None)) == before


@pytest.mark.parametrize(("fallback", "counts"), [(Fallback.REPLICAS, (5, 6)), (Fallback.MAX_SEEN, (3, 4))])
def test_after_a_while_without_metrics_the_fall_back_takes_over(fallback: Fallback, counts: tuple[int, int]) -> None:
    pools = {
        PREFILL: replace(QUICK[PREFILL], fallback_replicas=5),
        DECODE: replace(QUICK[DECODE], fallback_replicas=6),
    }
    d = drive(deployment(pools, fallback=fallback, metrics_timeout_s=120.0))
    d(replace(traffic(0.1), pools=running(3, 4)))
    before = granted(d(replace(traffic(0.1), pools=running(3, 4))))
    assert before == (1, 1)
    for _ in range(3):
        assert granted(d(traffic(None))) == before
    plan = d(traffic(None))
    assert granted(plan) == counts
    assert len(plan.scaling) == 1
    assert reasons(plan) == [ReasonCode.METRICS_FALLBACK]


def test_one_missing_reading_is_named() -> None:
    d = drive()
    stale = replace(traffic(40.0), isl_tokens=Missing(MissingReason.STALE, 90.0))
    plan = d(stale)
    assert plan.scaling == ()
    assert "isl_tokens (stale)" in plan.deployments[D].pools[PREFILL].chain[0].sentence


def test_an_idle_interval_carries_the_last_lengths() -> None:
    d = drive()
    d(traffic(40.0, isl=3000.0, osl=150.0))
    plan = d(traffic(0.0))
    assert plan.deployments[D].forecasts["isl_tokens"].mean == 3000.0
    assert ReasonCode.METRICS_MISSING not in reasons(plan)


def test_scale_to_zero_only_where_asked_for_and_both_pools_together() -> None:
    asked = {name: replace(p, min_replicas=0) for name, p in QUICK.items()}
    d = drive(deployment(asked, predictor="constant"))
    d(traffic(10.0))
    assert granted(d(traffic(0.0))) == (0, 0)
    woken = d(traffic(0.5))
    assert min(granted(woken)) >= 1
    assert ReasonCode.SCALE_FROM_ZERO in reasons(woken)
    half = drive(deployment({**QUICK, PREFILL: asked[PREFILL]}, predictor="constant"))
    half(traffic(10.0))
    plan = half(traffic(0.0))
    assert granted(plan) == (1, 1)
    assert reasons(plan)[-1] is ReasonCode.PARTNER_HELD


def test_waiting_requests_wake_a_deployment_that_sleeps() -> None:
    asked = {name: replace(p, min_replicas=0) for name, p in QUICK.items()}
    d = drive(deployment(asked))
    d(replace(traffic(0.0), pools=running(0, 0)))
    queue = PoolObservation(Replicas(), queued_requests=Sample(3.0))
    assert min(granted(d(replace(traffic(0.0), pools=running(0, 0, queue))))) >= 1


def test_pause_resume_pin_release() -> None:
    d = drive()
    before = granted(d(traffic(5.0)))
    paused = d(traffic(200.0), DeploymentCommand(D, "pause", sequence=1))
    assert granted(paused) == before
    assert reasons(paused) == [ReasonCode.PAUSED]
    pinned = d(traffic(200.0), DeploymentCommand(D, "resume", {}, 2), DeploymentCommand(D, "pin", {PREFILL: 7}, 3))
    assert granted(pinned) == (7, before[1])
    assert reasons(pinned) == [ReasonCode.PINNED]
    assert len(pinned.scaling) == 1
    stays = d(traffic(200.0), DeploymentCommand(D, "pin", {PREFILL: 2}, 2))
    assert granted(stays) == (7, before[1]), "an order that was seen before changes nothing"
    free = d(traffic(200.0), DeploymentCommand(D, "release", {}, 4))
    assert granted(free) != granted(pinned)


def test_a_pin_outranks_missing_metrics_but_no_ceiling() -> None:
    d = drive(deployment({**QUICK, PREFILL: replace(QUICK[PREFILL], max_replicas=6)}))
    plan = d(traffic(None), DeploymentCommand(D, "pin", {PREFILL: 99, DECODE: 0}, 1))
    assert granted(plan) == (6, 1)


def test_advisory_shows_and_does_not_publish() -> None:
    d = drive(deployment(QUICK, mode=OperationMode.ADVISORY))
    plan = d(traffic(100.0))
    assert plan.scaling == ()
    assert granted(plan)[0] > 1
    assert reasons(plan)[-1] is ReasonCode.ADVISORY
    assert d(traffic(100.0)).deployments[D].pools[PREFILL].current == 1


def test_a_paused_deployment_keeps_learning() -> None:
    d = drive(deployment(QUICK, mode=OperationMode.PAUSED))
    d(traffic(100.0))
    assert d(traffic(100.0)).deployments[D].forecasts["request_rate_per_s"].mean == pytest.approx(100.0)


def test_somebody_else_who_scales_is_named_and_not_fought() -> None:
    d = drive()
    counts = granted(d(traffic(40.0)))
    plans = [d(replace(traffic(40.0), pools=running(counts[0] + 3, counts[1]))) for _ in range(5)]
    assert all(not plan.scaling for plan in plans)
    assert ReasonCode.COMPETITOR not in notes(plans[1])
    assert notes(plans[-1])[ReasonCode.COMPETITOR].startswith(f"prefill runs {counts[0] + 3}, decided were {counts[0]}")
    assert ReasonCode.COMPETITOR not in notes(d(replace(traffic(40.0), pools=running(*counts))))


def test_replicas_that_start_or_wait_for_a_gpu_are_counted() -> None:
    under_way = PoolObservation(Replicas(ready=1, starting=2, pending=1, terminating=3))
    plan = drive()(replace(traffic(1.0), pools=running(1, 1, under_way)))
    assert plan.deployments[D].pools[PREFILL].current == 4


def test_tolerance_leaves_small_differences_alone() -> None:
    tolerant = ScalingRules(tolerance=0.2)
    pools = {name: replace(p, scale_up=tolerant, scale_down=tolerant) for name, p in QUICK.items()}
    exact, loose = drive(), drive(deployment(pools))
    counts = granted(exact(traffic(40.0)))
    assert granted(loose(traffic(40.0))) == counts
    rate, plan = 40.0, loose(traffic(40.0))
    while plan.deployments[D].pools[PREFILL].wanted == counts[0]:
        rate += 0.5
        plan = loose(traffic(rate))
    assert plan.deployments[D].pools[PREFILL].granted == counts[0]
    assert ReasonCode.TOLERANCE in reasons(plan)


def test_a_schedule_moves_the_minimum_in_local_time() -> None:
    berlin = timezone(timedelta(hours=1))
    night = ReplicaSchedule((ReplicaWindow(22 * 60, 6 * 60, min_replicas=4, max_replicas=8),), berlin)
    d = drive(deployment({**QUICK, PREFILL: replace(QUICK[PREFILL], schedule=night)}))
    assert granted(d(traffic(1.0)))[0] == 4  # 00:00 UTC is 01:00 there
    d.now_s = 5.5 * 3600.0
    assert granted(d(traffic(1.0)))[0] == 1
    d.now_s = 20.9 * 3600.0
    assert granted(d(traffic(1.0)))[0] == 1
    d.now_s = 21.0 * 3600.0
    plan = d(traffic(1.0))
    assert granted(plan)[0] == 4
    assert reasons(plan)[-1] is ReasonCode.SCHEDULE


def test_a_schedule_counts_the_day_on_which_its_window_starts() -> None:
    friday_night = ReplicaSchedule((ReplicaWindow(22 * 60, 6 * 60, min_replicas=4, weekdays=(4,)),))
    d = drive(deployment({**QUICK, PREFILL: replace(QUICK[PREFILL], schedule=friday_night)}))
    friday = 86_400.0  # 1970-01-02
    for now_s, floor in (
        (friday + 3600.0, 1),
        (friday + 23 * 3600.0, 4),
        (friday + 29 * 3600.0, 4),
        (friday + 31 * 3600.0, 1),
    ):
        d.now_s = now_s
        assert granted(d(traffic(1.0)))[0] == floor


def test_windows_and_horizons_run_on_load_time() -> None:
    fast = replace(planner(deployment(QUICK)), load_time_scale=10.0, interval_s=3.0)
    plan = Drive(fast)(traffic(10.0))
    assert plan.deployments[D].forecasts["request_rate_per_s"].horizon_s == 30.0 + 60.0


def load_drive(**changes: Any) -> Drive:
    return drive(replace(deployment(QUICK, sizing=SizingMode.LOAD, load=LoadThresholds()), **changes))


def loaded(queued: float, used: float, serving: int = 2) -> DeploymentObservation:
    queue = PoolObservation(Replicas(serving), queued_requests=Sample(queued))
    cache = PoolObservation(Replicas(2), kv_usage=Sample(used))
    return DeploymentObservation(30.0, pools={PREFILL: queue, DECODE: cache})


def test_mode_load_steps_by_one_and_needs_no_profile() -> None:
    d = load_drive()
    assert granted(d(loaded(9.0, 0.95))) == (3, 3)
    assert granted(d(loaded(9.0, 0.95))) == (4, 4)
    kept = d(loaded(0.0, 0.1))
    assert granted(kept) == (3, 4)
    assert reasons(kept, DECODE)[-1] is ReasonCode.GRACE_PERIOD
    for _ in range(3):
        last = d(loaded(0.9, 0.1))
    assert granted(last)[1] == 3


def test_mode_load_holds_without_its_readings() -> None:
    d = load_drive()
    before = granted(d(loaded(9.0, 0.95)))
    plan = d(traffic(100.0))
    assert granted(plan) == before
    assert reasons(plan) == [ReasonCode.METRICS_MISSING]


def test_both_modes_together_take_the_minimum_from_sla_and_the_reaction_from_load() -> None:
    d = drive(deployment(QUICK, sizing=SizingMode.SLA_LOAD))
    calm = replace(traffic(40.0), pools=loaded(0.0, 0.1, serving=4).pools)
    floor = granted(drive()(calm))
    assert granted(d(calm)) == floor, "thresholds would shrink, the targets would not hold"
    rush = replace(traffic(40.0), pools=loaded(0.0, 0.95, serving=4).pools)
    plan = d(rush)
    assert granted(plan)[1] == floor[1] + 1
    assert reasons(plan, DECODE)[:2] == [ReasonCode.SLA, ReasonCode.LOAD]


def test_an_aggregated_pool_carries_both_phases() -> None:
    name = "agg"
    both = replace(pool(PREFILL), pool=name, role=Role.AGGREGATED, scale_down=AT_ONCE)  # type: ignore[arg-type]
    one = deployment({name: both})  # type: ignore[dict-item]
    few, many = (drive(one)(traffic(rate)).deployments[D].pools[name].granted for rate in (5.0, 80.0))  # type: ignore[index]
    apart = sum(granted(drive()(traffic(80.0))))
    assert 1 <= few < many
    assert many >= apart - 2


def test_a_profile_without_a_phase_holds_and_says_so() -> None:
    one = deployment(QUICK)
    d = drive(replace(one, profile=replace(one.profile, decode=None)))
    plan = d(traffic(100.0))
    assert plan.scaling == ()
    assert reasons(plan) == [ReasonCode.MODEL_NOT_READY]


def test_a_target_below_the_service_time_is_reported_as_unreachable() -> None:
    plan = drive(deployment(QUICK, ttft_ms=20.0, itl_ms=2.0))(traffic(40.0))
    assert reasons(plan)[0] is ReasonCode.SLA_UNREACHABLE
    assert reasons(plan, DECODE)[0] is ReasonCode.SLA_UNREACHABLE
    assert granted(plan)[0] < 64


def test_a_backlog_asks_for_more_until_it_is_gone() -> None:
    queue = PoolObservation(Replicas(1), queued_requests=Sample(2000.0))
    calm, late = drive()(traffic(20.0)), drive()(replace(traffic(20.0), pools=running(1, 1, queue)))
    assert granted(late)[0] > granted(calm)[0]
    assert reasons(late)[:2] == [ReasonCode.SLA, ReasonCode.BACKLOG]
    assert "clear the 2240 that will wait" in late.deployments[D].pools[PREFILL].chain[1].sentence


def test_prefix_hits_accepted_tokens_and_targets_change_what_is_wanted() -> None:
    base = drive()(traffic(100.0))
    hits = drive()(traffic(100.0, kv_hit_rate=Sample(0.6)))
    drafts = drive(deployment(QUICK, itl_ms=8.0))(traffic(100.0, accept_length=Sample(2.5)))
    plain = drive(deployment(QUICK, itl_ms=8.0))(traffic(100.0))
    assert granted(hits)[0] < granted(base)[0]
    assert granted(drafts)[1] < granted(plain)[1]


def test_slow_engines_are_found_out_and_the_correction_is_shown() -> None:
    d = drive()
    first = granted(d(traffic(60.0)))
    slow: dict[str, Any] = {"ttft_ms": Sample(400.0), "itl_ms": Sample(30.0)}
    for _ in range(20):
        plan = d(traffic(60.0, **slow))
    assert plan.deployments[D].corrections["prefill"] > 1.3
    assert plan.deployments[D].corrections["decode"] > 1.3
    assert granted(plan)[0] > first[0]
    off = drive(deployment(QUICK, correction=False))
    for _ in range(20):
        plan = off(traffic(60.0, **slow))
    assert plan.deployments[D].corrections == {}
    assert granted(plan) == first


def test_the_record_is_complete() -> None:
    record = drive()(traffic(40.0)).deployments[D]
    assert record.observed["requests"] == 1200.0
    assert {"request_rate_per_s", "isl_tokens", "osl_tokens"} == set(record.forecasts)
    assert record.forecasts["request_rate_per_s"].horizon_s == 90.0
    assert record.expected_ttft_ms is not None
    assert record.expected_ttft_ms <= 500.0
    assert record.expected_itl_ms is not None
    assert record.expected_itl_ms <= 50.0
    assert record.missing["ttft_ms"] == "no_data"


def test_no_key_of_a_record_stands_for_two_units() -> None:
    """A count per interval and a rate are two quantities; mean lengths are tokens in both."""
    record = drive()(traffic(40.0)).deployments[D]
    interval_s = record.observed["interval_s"]
    assert interval_s is not None
    assert record.observed["requests"] == 40.0 * interval_s
    assert record.forecasts["request_rate_per_s"].mean == pytest.approx(40.0)
    for name in record.forecasts.keys() & record.observed.keys():
        assert record.forecasts[name].mean == pytest.approx(record.observed[name]), name


def test_a_pool_that_left_the_configuration_leaves_what_is_in_force_too() -> None:
    """Else the last decision would wait without end for replicas of a pool that nothing runs any more."""
    config, gone = planner(), PoolId("gone")
    last = Flow(4, {PREFILL: 1, DECODE: 1, gone: 2}, scaled_decision_id=4)
    state = initial_state(config, 1, 0.0, [(D, last)], ())
    assert state.deployments[D].flow.published == {PREFILL: 1, DECODE: 1}
    seen = replace(traffic(1.0), pools={name: PoolObservation(Replicas(1, 1)) for name in (PREFILL, DECODE)})
    after, _ = step(state, Observation({D: seen}), config, config.clock(30.0))
    assert after.deployments[D].flow.serving_decision_id == 4
