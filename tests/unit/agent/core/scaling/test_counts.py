"""Counts: lowers before raises, a second writer is named and left alone, and phases report what is seen."""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.core.scaling.counts import Comparison, compare, in_force_by_us
from agent.core.scaling.scaling_types import (
    PoolCount,
    PoolSeen,
    ReplicaDecision,
    ScalingPhase,
    ScalingProblem,
    ScalingState,
    SetReplicas,
    WriterKind,
)

ONE = ReplicaDecision(0, "i", {"decode": 3, "prefill": 1}, {"decode": (("g0",),)})


def at(decode: int, prefill: int, **changes: Any) -> dict[str, PoolSeen]:
    return {
        "decode": dataclasses.replace(PoolSeen(decode, decode, version="7"), **changes),
        "prefill": PoolSeen(prefill, prefill),
    }


def compared(seen: dict[str, PoolSeen], written: dict[str, int] | None = None, **how: bool) -> Comparison:
    return compare(ONE, seen, written or {}, **how)


def test_lowers_come_before_raises_and_placements_with_raises_only() -> None:
    result = compared(at(decode=1, prefill=4))
    assert result.actions == (SetReplicas("prefill", 1, 4), SetReplicas("decode", 3, 1, "7", (("g0",),)))
    assert not result.progress.complete
    assert result.progress.pools == {"decode": PoolCount(1, 3), "prefill": PoolCount(4, 1)}


def test_counts_in_force_need_no_action() -> None:
    result = compared(at(decode=3, prefill=1))
    assert (result.actions, result.progress.complete, result.progress.phase) == ((), True, ScalingPhase.DRAINED)


def test_a_replica_that_does_not_serve_yet_is_starting() -> None:
    result = compared(at(decode=3, prefill=1, ready=2))
    assert (result.actions, result.progress.complete, result.progress.phase) == ((), False, ScalingPhase.STARTING)


def test_the_phase_reports_what_is_known_of_those_that_leave() -> None:
    for changes, phase in (
        ({"leaving": 1}, ScalingPhase.DRAINING),
        ({"ready": 4}, ScalingPhase.DRAINING),
        ({"leaving": None}, ScalingPhase.APPLIED),
        ({"leaving": 0, "idle": False}, ScalingPhase.DRAINING),
        ({}, ScalingPhase.DRAINED),
    ):
        progress = compared(at(decode=3, prefill=1, **changes)).progress
        assert (progress.complete, progress.phase) == (True, phase)


def test_a_second_writer_is_named_and_not_fought() -> None:
    result = compared(at(decode=5, prefill=1, writer="HPA decode", writer_kind=WriterKind.AUTOSCALER), {"decode": 2})
    assert (result.actions, result.foreign) == ((), {"decode": WriterKind.AUTOSCALER})
    assert result.progress.problem == ScalingProblem("decode: HPA decode set 5 replicas where the decision has 3")
    nameless = compared(at(decode=5, prefill=1), {"decode": 2}).progress.problem
    assert nameless is not None
    assert "somebody else set 5" in nameless.reason


def test_the_setting_lets_the_decision_win() -> None:
    result = compared(at(decode=5, prefill=1), {"decode": 2}, overwrite=True)
    assert result.actions == (SetReplicas("decode", 3, 5, "7"),)
    assert result.foreign == {"decode": WriterKind.OTHER}


def test_an_autoscaler_that_aims_at_a_pool_is_one_whatever_the_count_is() -> None:
    for overwrite, decode in ((False, None), (True, 3), (True, 5)):
        seen = at(decode=3, prefill=1, rival=True, writer_kind=WriterKind.AUTOSCALER)
        seen["decode"] = dataclasses.replace(seen["decode"], wanted=decode)
        assert compared(seen, {"decode": 2}, overwrite=overwrite).foreign == {"decode": WriterKind.AUTOSCALER}


def test_a_second_writer_of_the_wanted_count_or_the_count_of_our_last_write_is_none() -> None:
    assert compared(at(decode=3, prefill=1), {"decode": 2}).foreign == {}
    assert compared(at(decode=2, prefill=1), {"decode": 2}).actions == (SetReplicas("decode", 3, 2, "7", (("g0",),)),)


def test_a_completed_decision_was_in_force_also_before_this_process() -> None:
    completed = ScalingState(ONE, "i", scaled_id=0, settled_id=0)
    assert in_force_by_us(completed, {}) == {"decode": 3, "prefill": 1}
    assert in_force_by_us(completed, {"decode": 9}) == {"decode": 9, "prefill": 1}
    assert in_force_by_us(ScalingState(ONE, "i"), {"decode": 2}) == {"decode": 2}


def test_one_pool_that_cannot_be_read_does_not_hold_up_the_other() -> None:
    for missing in ({"prefill": PoolSeen(4, 4)}, {"decode": PoolSeen(None, 0), "prefill": PoolSeen(4, 4)}):
        result = compared(missing)
        assert result.actions == (SetReplicas("prefill", 1, 4),)
        assert result.progress.problem == ScalingProblem("decode: its count cannot be read now")


def test_nothing_is_raised_while_held_but_lowers_go_on() -> None:
    held = compared(at(decode=1, prefill=4, hold="rollout in progress"))
    assert held.actions == (SetReplicas("prefill", 1, 4),)
    assert held.progress.problem == ScalingProblem("decode: nothing is raised now: rollout in progress")
    assert compared(at(decode=5, prefill=1, hold="rollout")).actions == (SetReplicas("decode", 3, 5, "7"),)


def test_one_lasting_problem_ends_the_decision() -> None:
    seen = at(decode=1, prefill=1, problem=ScalingProblem("forbidden", retryable=False))
    assert compared(seen).progress.problem == ScalingProblem("forbidden", retryable=False)


def test_a_pool_is_not_lowered_below_what_works_there() -> None:
    decision = ReplicaDecision(1, "one", {"decode": 0})
    found = compare(decision, {"decode": PoolSeen(2, 2, at_least=1)}, {"decode": 2})
    assert [(one.replicas, one.was) for one in found.actions] == [(1, 2)]
    assert found.progress.problem == ScalingProblem(
        "decode: 0 replicas do not work there: at least 1 must stay", retryable=False
    )


def test_a_pool_at_zero_is_not_raised_by_a_decision_of_zero() -> None:
    """Its watts were never reserved, whatever works there."""
    found = compare(ReplicaDecision(1, "one", {"decode": 0}), {"decode": PoolSeen(0, 0, at_least=1)}, {})
    assert (found.actions, found.progress.problem, found.progress.complete) == ((), None, True)
