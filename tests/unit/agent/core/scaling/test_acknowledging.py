"""Which acknowledgements a decision gets: completed or superseded or refused, in order, and once."""

from __future__ import annotations

import itertools

from agent.core.scaling.acknowledging import MOST_REPLICAS, Received, receive, report, restored
from agent.core.scaling.scaling_types import (
    Acknowledgement,
    PoolCount,
    ReplicaDecision,
    ScalingPhase,
    ScalingProblem,
    ScalingProgress,
    ScalingState,
    ScalingStatus,
)

POOLS = ("prefill", "decode")


def decision(number: int, incarnation: str = "i", **replicas: int) -> ReplicaDecision:
    return ReplicaDecision(number, incarnation, replicas or {"decode": number + 1})


def taken(state: ScalingState, one: ReplicaDecision) -> tuple[ScalingState, list[tuple[int, ScalingStatus]]]:
    state, _, acks = receive(state, one, POOLS)
    return state, [(ack.decision_id, ack.status) for ack in acks]


def done(one: ReplicaDecision, phase: ScalingPhase | None = ScalingPhase.DRAINED) -> ScalingProgress:
    return ScalingProgress(one.key, complete=True, phase=phase)


def short(acks: tuple[Acknowledgement, ...]) -> list[tuple[int, int, ScalingStatus, ScalingPhase | None]]:
    return [(ack.decision_id, ack.scaled_id, ack.status, ack.phase) for ack in acks]


def test_a_decision_is_accepted_then_completed_then_drained() -> None:
    state, acks = taken(restored(None), decision(0))
    assert acks == [(0, ScalingStatus.ACCEPTED)]
    starting = ScalingProgress(decision(0).key, False, ScalingPhase.STARTING, {"decode": PoolCount(0, 1)})
    state, first = report(state, starting)
    assert first[0].pools == {"decode": PoolCount(0, 1)}
    state, none = report(state, starting)
    assert none == ()
    state, second = report(state, done(decision(0), ScalingPhase.DRAINING))
    state, third = report(state, done(decision(0), ScalingPhase.DRAINED))
    state, fourth = report(state, done(decision(0), ScalingPhase.DRAINED))
    assert short(first + second + third + fourth) == [
        (0, -1, ScalingStatus.ACCEPTED, ScalingPhase.STARTING),
        (0, 0, ScalingStatus.APPLIED, ScalingPhase.DRAINING),
        (0, 0, ScalingStatus.APPLIED, ScalingPhase.DRAINED),
    ]


def test_phases_of_a_decision_only_move_forward() -> None:
    order = [None, ScalingPhase.APPLIED, ScalingPhase.DRAINING, ScalingPhase.DRAINED]
    for phases in itertools.product(order, repeat=3):
        state, _ = taken(restored(None), decision(0))
        seen = []
        for phase in phases:
            state, acks = report(state, done(decision(0), phase))
            seen += [order.index(ack.phase) for ack in acks]
        assert seen == sorted(set(seen))


def test_a_newer_decision_takes_the_place_of_an_unfinished_one() -> None:
    state, _ = taken(restored(None), decision(0))
    state, acks = taken(state, decision(1))
    assert acks == [(0, ScalingStatus.SUPERSEDED), (1, ScalingStatus.ACCEPTED)]
    state, late = report(state, done(decision(0)))
    assert late == ()
    assert state.scaled_id == -1
    state, acks_of_1 = report(state, done(decision(1)))
    assert short(acks_of_1) == [(1, 1, ScalingStatus.APPLIED, ScalingPhase.DRAINED)]


def test_decisions_that_passed_unseen_are_superseded_one_by_one() -> None:
    state, _ = taken(restored(None), decision(0))
    state, _ = report(state, done(decision(0)))
    _, acks = taken(state, decision(4))
    assert acks == [
        (1, ScalingStatus.SUPERSEDED),
        (2, ScalingStatus.SUPERSEDED),
        (3, ScalingStatus.SUPERSEDED),
        (4, ScalingStatus.ACCEPTED),
    ]


def test_a_completed_decision_is_not_superseded_by_the_next() -> None:
    state, _ = taken(restored(None), decision(0))
    state, _ = report(state, done(decision(0), ScalingPhase.DRAINING))
    state, acks = taken(state, decision(1))
    assert acks == [(1, ScalingStatus.ACCEPTED)]
    assert report(state, done(decision(0), ScalingPhase.DRAINED))[1] == ()


def test_repeated_and_older_decisions_give_nothing() -> None:
    state, _ = taken(restored(None), decision(3))
    for number in (3, 2, 0):
        same, what, acks = receive(state, decision(number), POOLS)
        assert (same, acks) == (state, ())
        assert what is (Received.REPEATED if number == 3 else Received.OLD)


def test_a_new_incarnation_begins_at_0_and_the_earlier_one_stays_refused() -> None:
    state, _ = taken(restored(None), decision(7))
    state, _, acks = receive(state, decision(0, "j"), POOLS)
    assert [(ack.incarnation, ack.decision_id, ack.status) for ack in acks] == [
        ("i", 7, ScalingStatus.SUPERSEDED),
        ("j", 0, ScalingStatus.ACCEPTED),
    ]
    assert receive(state, decision(8), POOLS)[1] is Received.OLD


def test_what_can_never_be_carried_out_is_rejected_with_the_reason() -> None:
    for bad, reason in (
        ({"gpu": 1}, "no such pool here: gpu; there are: decode, prefill"),
        ({"decode": -1}, "-1 replicas of decode: not between 0 and 100000"),
        ({"decode": MOST_REPLICAS + 1}, "100001 replicas of decode: not between 0 and 100000"),
    ):
        state, what, acks = receive(restored(None), ReplicaDecision(0, "i", bad), POOLS)
        assert (what, acks[-1].status, acks[-1].reason, acks[-1].retryable) == (
            Received.REJECTED,
            ScalingStatus.REJECTED,
            reason,
            False,
        )
        assert state.pursued is None
        assert taken(state, decision(1))[1] == [(1, ScalingStatus.ACCEPTED)]
    _, what, acks = receive(restored(None), ReplicaDecision(0, "i", {}), POOLS)
    assert (what, acks[-1].reason) == (Received.REJECTED, "the decision names no pool")


def test_a_rejected_decision_replaces_the_unfinished_one_before_it() -> None:
    state, _ = taken(restored(None), decision(0))
    state, acks = taken(state, decision(1, gpu=1))
    assert acks == [(0, ScalingStatus.SUPERSEDED), (1, ScalingStatus.REJECTED)]
    assert report(state, done(decision(0)))[1] == ()


def test_a_failure_that_may_pass_leaves_the_decision_open_and_another_ends_it() -> None:
    one = decision(0)
    state, _ = taken(restored(None), one)
    state, acks = report(
        state, ScalingProgress(one.key, False, ScalingPhase.STARTING, {}, ScalingProblem("no GPU", retryable=True))
    )
    assert (acks[0].status, acks[0].reason, acks[0].final) == (ScalingStatus.FAILED, "no GPU", False)
    _, acks = report(state, done(one))
    assert acks[0].status is ScalingStatus.APPLIED
    state, acks = report(
        state, ScalingProgress(one.key, False, ScalingPhase.STARTING, {}, ScalingProblem("forbidden", retryable=False))
    )
    assert acks[0].final
    assert state.pursued is None
    assert report(state, done(one))[1] == ()


def test_one_pool_in_force_beside_another_with_a_problem_is_partial() -> None:
    one = decision(0, prefill=1, decode=1)
    state, _ = taken(restored(None), one)
    pools = {"prefill": PoolCount(1, 1), "decode": PoolCount(0, 1)}
    _, acks = report(
        state, ScalingProgress(one.key, False, ScalingPhase.STARTING, pools, ScalingProblem("decode: crash loop"))
    )
    assert (acks[0].status, acks[0].pools) == (ScalingStatus.PARTIAL, pools)


def test_a_problem_after_completion_is_reported_once_and_takes_nothing_back() -> None:
    one = decision(0)
    state, _ = taken(restored(None), one)
    state, _ = report(state, done(one))
    edited = ScalingProgress(
        one.key, False, ScalingPhase.STARTING, {"decode": PoolCount(4, 1)}, ScalingProblem("hpa set 4")
    )
    state, acks = report(state, edited)
    assert short(acks) == [(0, 0, ScalingStatus.PARTIAL, ScalingPhase.DRAINED)]
    state, acks = report(state, edited)
    assert acks == ()
    state, acks = report(state, done(one))
    assert short(acks) == [(0, 0, ScalingStatus.APPLIED, ScalingPhase.DRAINED)]


def test_a_restart_goes_on_where_the_stored_acknowledgements_end() -> None:
    one = decision(5)
    state, _ = taken(restored(None), decision(5))
    state, acks = report(state, done(one, ScalingPhase.DRAINING))
    again, what, none = receive(restored(acks[-1]), one, POOLS)
    assert (what, none) == (Received.RESUMED, ())
    again, acks = report(again, done(one, ScalingPhase.DRAINING))
    assert acks == ()
    again, acks = report(again, done(one, ScalingPhase.DRAINED))
    assert short(acks) == [(5, 5, ScalingStatus.APPLIED, ScalingPhase.DRAINED)]


def test_an_unfinished_decision_is_resumed_without_a_second_acceptance() -> None:
    one = decision(2)
    _, _, acks = receive(restored(None), one, POOLS)
    state, what, none = receive(restored(acks[-1]), one, POOLS)
    assert (what, none, state.pursued) == (Received.RESUMED, (), one)
