"""What an agent does not touch: GPUs of pods that belong to no deployment, and limits that no decision names."""

from __future__ import annotations

from agent.core import caps
from agent.core.caps import SetLimit
from tests.unit.agent.core.test_caps import BOOT, HIGH, LOW, decision, read, received, started


def test_without_a_decision_a_foreign_pods_gpu_keeps_its_limit_for_any_time() -> None:
    state = caps.left_alone(started(a=450, b=450), ["b"])
    assert caps.actions(state, read(a=450, b=450), 1e6) == (SetLimit("a", LOW),)


def test_another_tool_may_change_the_limit_of_a_foreign_pods_gpu() -> None:
    state = caps.left_alone(started(a=450), ["a"])
    assert caps.actions(state, read(a=HIGH), 1.0) == ()
    assert caps.actions(started(a=450), read(a=HIGH), 1.0) == (SetLimit("a", 450),)


def test_a_decision_that_names_the_gpu_holds_for_it_whatever_runs_there() -> None:
    state = received(caps.left_alone(started(a=600, b=600), ["a", "b"]), decision(0, {"a": 500}))
    assert caps.actions(state, read(a=600, b=600), 1.0) == (SetLimit("a", 500),)
    assert caps.actions(state, read(a=500, b=600), 30.0) == (SetLimit("a", 300),), "the end of the lease"


def test_the_pods_own_annotation_is_followed_and_nothing_below_it() -> None:
    state = caps.bounded(caps.left_alone(started(a=600), ["a"]), {"a": 400})
    assert caps.actions(state, read(a=600), 1.0) == (SetLimit("a", 400),)
    assert caps.actions(state, read(a=400), 1e6) == ()


def test_once_the_pod_is_gone_the_gpu_is_like_any_other() -> None:
    state = caps.left_alone(caps.left_alone(started(a=450), ["a"]), [])
    assert caps.actions(state, read(a=450), 30.0) == (SetLimit("a", LOW),)


def test_beside_a_planner_that_only_advises_limits_stay_where_it_is_set() -> None:
    state = caps.observed(caps.initial(BOOT, 0.0, hold_without_decision=True), read(a=450), 0.0)
    assert caps.actions(state, read(a=450), 1e9) == ()
    decided = received(state, decision(0, {"a": 400}))
    assert caps.actions(decided, read(a=450), 1.0) == (SetLimit("a", 400),)
    assert caps.actions(decided, read(a=400), 31.0) == (SetLimit("a", 300),), "a lease ends as everywhere"


def test_caps_that_are_given_back_stay_given_back_after_the_lease() -> None:
    state = received(started(a=300), decision(0, {"a": HIGH}, fallback=HIGH))
    assert caps.actions(state, read(a=300), 1.0) == (SetLimit("a", HIGH),)
    assert caps.actions(state, read(a=HIGH), 1e6) == ()
