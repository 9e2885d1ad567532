"""What one agent writes: fencing, lowers before raises, the dead-man, drift, resets, what resists, what it reports."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import caps
from agent.core.caps import Acceptance, AgentState, CapDecision, GpuTarget, Health, LimitReading, SetLimit, WriteResult
from bus_schemas.units import GpuSetpoint, Milliwatts

HIGH, LOW = 700, 200
BOOT = "m/1"


def reading(gpu: str, mw: int | None, **other: Any) -> LimitReading:
    return replace(LimitReading(gpu, mw, mw, HIGH, LOW, HIGH), **other)


def read(**limits: int | None) -> dict[str, LimitReading]:
    return {gpu: reading(gpu, mw) for gpu, mw in limits.items()}


def decision(
    number: int,
    targets: Mapping[str, int],
    heard_s: float | None = 0.0,
    *,
    epoch: int = 1,
    boot: str = BOOT,
    fallback: int = 300,
    incarnation: str = "i",
    only_lowers: bool = False,
    released: tuple[str, ...] = (),
) -> CapDecision:
    rows = tuple(GpuTarget(gpu, GpuSetpoint(Milliwatts(cap)), min(cap, fallback)) for gpu, cap in targets.items())
    return CapDecision(
        epoch, number, incarnation, 30.0, rows, boot if heard_s is not None else "", heard_s, only_lowers, released
    )


def started(**limits: int | None) -> AgentState:
    return caps.observed(caps.initial(BOOT, 0.0), read(**limits), 0.0)


def received(state: AgentState, *decisions: CapDecision, now_s: float = 1.0) -> AgentState:
    for each in decisions:
        state, verdict = caps.receive(state, each, now_s)
        assert verdict is Acceptance.ACCEPTED
    return state


def test_on_start_it_adopts_what_is_enforced_and_writes_nothing() -> None:
    state = started(a=HIGH, b=450)
    assert caps.actions(state, read(a=HIGH, b=450), 1.0) == ()
    assert caps.report(state, read(a=HIGH, b=450)).decision_id == -1


def test_without_any_decision_what_it_found_stands_for_a_grace_and_then_goes_to_the_minimum() -> None:
    state = started(a=450)
    assert caps.deadline_s(state) == 30.0
    assert caps.actions(state, read(a=450), 29.9) == ()
    assert caps.actions(state, read(a=450), 30.0) == (SetLimit("a", LOW),)


def test_where_no_planner_is_expected_it_leaves_alone_what_it_found() -> None:
    state = caps.observed(caps.initial(BOOT, 0.0, hold_without_decision=True), read(a=450), 0.0)
    assert caps.deadline_s(state) is None
    assert caps.actions(state, read(a=450), 1e9) == ()


def test_lowers_go_before_raises_and_only_differences_are_written() -> None:
    state = received(started(a=300, b=600, c=500), decision(0, {"a": 500, "b": 300, "c": 500}))
    assert caps.actions(state, read(a=300, b=600, c=500), 1.0) == (SetLimit("b", 300), SetLimit("a", 500))


def test_older_epochs_and_ids_are_refused_and_the_same_again_changes_nothing() -> None:
    state = received(started(a=600), decision(5, {"a": 400}, epoch=7))
    assert caps.receive(state, decision(6, {"a": 700}, epoch=6), 1.0) == (state, Acceptance.OLDER_EPOCH)
    assert caps.receive(state, decision(4, {"a": 700}, epoch=7), 1.0) == (state, Acceptance.OLDER_ID)
    assert caps.receive(state, decision(5, {"a": 700}, epoch=8), 1.0) == (state, Acceptance.OLDER_ID)
    assert caps.receive(state, decision(5, {"a": 700}, epoch=7), 20.0) == (state, Acceptance.REPEATED)
    assert caps.deadline_s(state) == 30.0, "hearing it again renews nothing"


def test_a_new_incarnation_begins_anew_and_a_past_one_never_returns() -> None:
    state = received(started(a=600), decision(50, {"a": 400}, epoch=7))
    state = received(state, decision(0, {"a": 350}, epoch=2, incarnation="j"))
    assert caps.receive(state, decision(51, {"a": 700}, epoch=8), 1.0)[1] is Acceptance.OLDER_EPOCH


def test_a_lease_that_runs_out_steps_down_to_the_fallback_and_never_up() -> None:
    state = received(started(a=600, b=600), decision(0, {"a": 500, "b": 250}))
    assert caps.deadline_s(state) == 30.0
    assert caps.actions(state, read(a=500, b=250), 29.9) == ()
    assert caps.actions(state, read(a=500, b=250), 30.0) == (SetLimit("a", 300),)
    assert caps.actions(state, read(a=220, b=210), 30.0) == ()
    assert caps.deadline_s(caps.lapse(state, 30.0)) is None


def test_a_renewal_counts_from_the_report_it_names() -> None:
    state = received(started(a=600), decision(0, {"a": 500}))
    state = received(state, decision(1, {"a": 500}, heard_s=20.0), now_s=25.0)
    assert caps.deadline_s(state) == 50.0


def test_a_late_decision_lowers_and_raises_nothing() -> None:
    state = received(started(a=400, b=600), decision(0, {"a": 400, "b": 600}))
    late = decision(1, {"a": 650, "b": 350}, heard_s=-100.0)
    state = received(state, late, now_s=10.0)
    assert caps.actions(state, read(a=400, b=600), 10.0) == (SetLimit("b", 350),)
    assert caps.deadline_s(state) == 30.0, "and extends nothing"


def test_a_decision_for_an_earlier_process_lowers_and_raises_nothing() -> None:
    state = received(started(a=300, b=600), decision(9, {"a": 500, "b": 350}, heard_s=-5.0, boot="m/0"))
    assert caps.actions(state, read(a=300, b=600), 1.0) == (SetLimit("b", 350),)
    assert caps.deadline_s(state) == 25.0, "the machine's clock has gone on"


def test_a_decision_from_before_the_machine_booted_holds_no_longer_than_a_lease_from_the_start() -> None:
    state = received(started(a=300), decision(9, {"a": 500}, heard_s=5000.0, boot="l/4"))
    assert caps.actions(state, read(a=300), 1.0) == ()
    assert caps.deadline_s(state) == 30.0


def test_over_budget_a_decision_renews_and_lowers_and_raises_nothing() -> None:
    state = received(started(a=300, b=600), decision(0, {"a": 500, "b": 400}, only_lowers=True))
    assert caps.actions(state, read(a=300, b=600), 1.0) == (SetLimit("b", 400),)
    assert caps.actions(state, read(a=250, b=400), 1.0) == (), "not even back to where it stood"
    state = received(state, decision(1, {"a": 500, "b": 400}))
    assert caps.actions(state, read(a=300, b=400), 1.0) == (SetLimit("a", 500),)


def test_a_gpu_that_is_left_to_others_gets_its_default_back_once_and_is_then_left_alone() -> None:
    state = received(started(a=HIGH, b=600), decision(0, {"a": 300, "b": 400}))
    state = caps.observed(state, read(a=300, b=400), 1.0)
    state = received(state, decision(1, {"b": 400}, released=("a",)))
    assert caps.actions(state, read(a=300, b=400), 1.0) == (SetLimit("a", HIGH),)
    state = caps.left_alone(caps.observed(state, read(a=HIGH, b=400), 1.0, [WriteResult("a", HIGH)]), ["a"])
    assert caps.actions(state, read(a=550, b=400), 2.0) == (), "whoever holds it may set what they like"
    assert caps.actions(state, read(a=550, b=300), 40.0) == (), "not even when the lease ends"


def test_a_limit_that_no_decision_has_set_is_not_given_back() -> None:
    state = received(started(a=450, b=600), decision(0, {"b": 400}, released=("a",)))
    assert caps.actions(state, read(a=450, b=400), 1.0) == ()


def test_a_late_or_only_lowering_decision_gives_nothing_back() -> None:
    state = received(started(a=HIGH, b=600), decision(0, {"a": 300, "b": 400}))
    state = caps.observed(state, read(a=300, b=400), 1.0)
    over = received(state, decision(1, {"b": 400}, released=("a",), only_lowers=True))
    assert caps.actions(over, read(a=300, b=400), 1.0) == ()
    late = received(state, decision(1, {"b": 400}, heard_s=-100.0, released=("a",)), now_s=10.0)
    assert caps.actions(late, read(a=300, b=400), 10.0) == ()


def test_a_gpu_that_a_worker_takes_again_is_capped_again() -> None:
    state = received(started(a=HIGH), decision(0, {"a": 300}), decision(1, {}, released=("a",)))
    state = received(state, decision(2, {"a": 250}))
    assert caps.actions(state, read(a=500), 1.0) == (SetLimit("a", 250),)


def test_values_are_clamped_and_bounded_from_above() -> None:
    state = caps.bounded(received(started(a=600, b=600), decision(0, {"a": 100, "b": 500})), {"b": 350})
    assert caps.actions(state, read(a=600, b=600), 1.0) == (SetLimit("a", LOW), SetLimit("b", 350))
    done = read(a=LOW, b=350)
    assert caps.report(state, done).status == "applied"


def test_drift_is_lowered_again_and_a_foreign_cut_is_restored_while_the_lease_holds() -> None:
    state = received(started(a=400), decision(0, {"a": 400}))
    assert caps.actions(state, read(a=HIGH), 2.0) == (SetLimit("a", 400),)
    assert caps.actions(state, read(a=250), 2.0) == (SetLimit("a", 400),)
    assert caps.actions(state, read(a=250), 31.0) == (), "after the lease it is not"


def test_a_limit_held_lower_by_another_limiter_is_applied_and_not_written_again() -> None:
    state = received(started(a=600), decision(0, {"a": 500}))
    held = {"a": LimitReading("a", 500, 350, HIGH, LOW, HIGH)}
    assert caps.actions(state, held, 1.0) == ()
    assert caps.report(state, held).status == "applied"


def test_success_without_effect_is_partial_and_tried_again_with_back_off() -> None:
    state = received(started(a=600, b=600), decision(0, {"a": 400, "b": 400}))
    stuck = read(a=600, b=400)
    times, now_s = [], 1.0
    while now_s < 120.0:
        acts = caps.actions(state, stuck, now_s)
        if acts:
            assert acts == (SetLimit("a", 400),) or now_s >= 30.0
            times.append(now_s)
        state = caps.observed(state, stuck, now_s, [WriteResult(act.gpu, act.mw) for act in acts])
        state = received(state, decision(len(times) + int(now_s * 10), {"a": 400, "b": 400}, now_s), now_s=now_s)
        now_s += 0.25
    assert caps.report(state, stuck).status == "partial"
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert gaps == sorted(gaps), "ever longer"
    assert max(gaps) <= caps.LAST_RETRY_S + 0.25, "but never longer than a reconcile"


def test_a_reset_is_reported_until_the_limit_is_back() -> None:
    state = received(started(a=600), decision(0, {"a": 400}))
    state = caps.observed(state, read(a=400), 1.0, [WriteResult("a", 400)])
    after = {"a": reading("a", HIGH, resets=1)}
    state = caps.observed(state, after, 2.0)
    assert caps.report(state, after).gpus[0].reset
    assert caps.actions(state, after, 2.0) == (SetLimit("a", 400),)
    back = {"a": reading("a", 400, resets=1)}
    state = caps.observed(state, back, 2.1, [WriteResult("a", 400)])
    assert not caps.report(state, back).gpus[0].reset


def test_a_reset_is_over_once_a_later_write_stands_even_above_what_was_asked() -> None:
    """Some hardware takes no limit as low as the minimum that its driver names: it must not be charged its default."""
    state = received(started(a=600), decision(0, {"a": LOW}))
    reset, clamped = {"a": reading("a", HIGH, resets=1)}, {"a": reading("a", LOW + 12, resets=1)}
    state = caps.observed(state, reset, 1.0)
    assert caps.report(state, reset).gpus[0].reset
    state = caps.observed(state, clamped, 2.0, [WriteResult("a", LOW, "timeout")])
    assert caps.report(state, clamped).gpus[0].reset, "a write that failed restored nothing"
    again = {"a": replace(clamped["a"], resets=2)}
    state = caps.observed(state, again, 2.5, [WriteResult("a", LOW)])
    assert caps.report(state, again).gpus[0].reset, "the second reset may have come after the write"
    state = caps.observed(state, again, 3.0, [WriteResult("a", LOW)])
    assert not caps.report(state, again).gpus[0].reset


@pytest.mark.parametrize("noticed", [True, False], ids=["read before", "read with the write"])
def test_a_reset_right_after_a_write_is_answered_at_once(noticed: bool) -> None:
    """The back-off is for hardware that resists; a reset lost what the write had achieved."""
    state = received(started(a=600), decision(0, {"a": 400}))
    state = caps.observed(state, read(a=400), 1.0, [WriteResult("a", 400)])
    after = {"a": reading("a", HIGH, resets=1)}
    if noticed:
        state = caps.observed(state, after, 1.1)
    assert caps.actions(state, after, 1.1) == (SetLimit("a", 400),)
    state = caps.observed(state, after, 1.1, [WriteResult("a", 400)])
    assert caps.actions(state, after, 1.2) == (), "what resists is not hammered"


def test_a_gpu_that_never_takes_a_limit_is_uncappable_and_left_alone() -> None:
    state = received(started(a=600), decision(0, {"a": 400}))
    state = caps.observed(state, read(a=600), 1.0, [WriteResult("a", 400, "no_permission")])
    assert caps.actions(state, read(a=600), 99.0) == ()
    report = caps.report(state, read(a=600))
    assert (report.status, report.gpus[0].health) == ("failed", Health.UNCAPPABLE)


@pytest.mark.parametrize("health", [Health.UNKNOWN, Health.QUARANTINED, Health.UNCAPPABLE])
def test_nothing_is_written_to_a_gpu_that_does_not_answer(health: Health) -> None:
    state = received(started(a=600), decision(0, {"a": 400}))
    blind = {"a": reading("a", None, health=health)}
    assert caps.actions(state, blind, 1.0) == ()
    assert caps.report(state, blind).status == "failed"


def test_a_gpu_without_a_reading_is_unknown_in_the_report() -> None:
    state = received(started(a=600, b=600), decision(0, {"a": 400, "b": 400}))
    report = caps.report(state, read(a=400))
    assert report.status == "partial"
    assert [(g.gpu, g.health, g.enforced_mw) for g in report.gpus] == [
        ("a", Health.OK, 400),
        ("b", Health.UNKNOWN, None),
    ]


@pytest.mark.parametrize(
    ("kind", "health"),
    [
        (None, Health.OK),
        ("timeout", Health.UNKNOWN),
        ("not_ready", Health.UNKNOWN),
        ("unsupported", Health.UNCAPPABLE),
        ("no_permission", Health.UNCAPPABLE),
        ("gpu_lost", Health.QUARANTINED),
        ("reset_required", Health.QUARANTINED),
    ],
)
def test_errors_become_health_by_kind(kind: str | None, health: Health) -> None:
    assert caps.health_of(kind) is health


@given(
    limits=st.lists(st.integers(LOW, HIGH), min_size=2, max_size=2),
    rows=st.lists(
        st.tuples(
            st.integers(0, 6),
            st.lists(st.integers(0, 900), min_size=2, max_size=2),
            st.sampled_from([None, -50.0, 0.0, 10.0]),
            st.booleans(),
        ),
        max_size=8,
    ),
)
def test_no_sequence_of_decisions_lifts_a_limit_above_what_it_found_and_what_was_allowed(
    limits: list[int], rows: list[tuple[int, list[int], float | None, bool]]
) -> None:
    gpus = dict(zip("ab", limits, strict=True))
    highest = dict(gpus)
    state = started(**gpus)
    for step, (number, targets, heard_s, only_lowers) in enumerate(rows):
        wanted = dict(zip("ab", targets, strict=True))
        state, verdict = caps.receive(state, decision(number, wanted, heard_s, only_lowers=only_lowers), float(step))
        if verdict is Acceptance.ACCEPTED:
            highest = {gpu: max(highest[gpu], min(max(wanted[gpu], LOW), HIGH)) for gpu in gpus}
        before = dict(gpus)
        for act in caps.actions(state, read(**gpus), float(step)):
            gpus[act.gpu] = act.mw
        if only_lowers and verdict is Acceptance.ACCEPTED:
            assert all(gpus[gpu] <= before[gpu] for gpu in gpus)
        assert all(gpus[gpu] <= highest[gpu] for gpu in gpus)
    for act in caps.actions(state, read(**gpus), 1e9):
        assert act.mw < gpus[act.gpu], "after every lease there are only lowers"
