"""What an actuator's fields in Redis say about a decision, and what they do not say."""

from __future__ import annotations

import pytest

from agent.connectors.virtual.dynamo_hash import (
    PassedOnHash,
    is_absent,
    own_keys,
    passed_on_hash,
    progress,
    target_key,
)
from agent.core.scaling.scaling_types import PoolCount, ScalingPhase, ScalingProgress

KEY = ("one", 4)
POOLS = {"prefill": ("prefill", 1), "decode": ("decode", 2)}
WANTED = {"prefill": 1, "decode": 2}
ASKED = {"prefill": "1", "decode": "2", "updated_at": "90"}
REPORT = {
    "prefill_active": "1",
    "decode_active": "2",
    "prefill_stable": "TRUE",
    "decode_stable": "true",
    "observed_at": "100.5",
}
BEFORE = PassedOnHash(KEY, "99.5")


def seen(**fields: str) -> ScalingProgress:
    given = {name: text for name, text in {**ASKED, **REPORT, **fields}.items() if text}
    return progress(KEY, POOLS, WANTED, BEFORE, given, was_completed=False)


def test_keys_of_one_deployment_stay_on_one_node_of_a_cluster() -> None:
    target = target_key("dynamo:planner:target", "prod", "Llama-3")
    assert target == "dynamo:planner:target:{prod:Llama-3}"
    assert all("{prod:Llama-3}" in key for key in own_keys(target))


def test_active_and_stable_is_complete() -> None:
    assert seen() == ScalingProgress(KEY, True, None, {"prefill": PoolCount(1, 1), "decode": PoolCount(2, 2)})


@pytest.mark.parametrize(
    "fields",
    [{"decode_active": "1"}, {"decode_stable": "false"}, {"decode_active": ""}, {"decode_stable": ""}],
    ids=str,
)
def test_what_is_missing_or_differs_is_not_complete(fields: dict[str, str]) -> None:
    found = seen(**fields)
    assert (found.complete, found.phase, found.problem) == (False, ScalingPhase.STARTING, None)


@pytest.mark.parametrize("observed_at", ["", BEFORE.observed_at])
def test_a_report_of_before_the_decision_says_nothing_about_it(observed_at: str) -> None:
    found = seen(observed_at=observed_at)
    assert (found.complete, found.pools, found.problem) == (False, {}, None)


@pytest.mark.parametrize("count", ["-1", "two", "1.0", "9" * 30])
def test_a_count_that_is_none_is_named(count: str) -> None:
    found = seen(decode_active=count)
    assert found.problem is not None
    assert (found.complete, found.problem.reason) == (False, "the actuator writes no count to decode_active")


def test_another_planners_counts_are_named_and_complete_nothing() -> None:
    found = seen(decode="7", decode_active="7")
    assert found.problem is not None
    assert "decode 7, prefill 1 where this one has decode 2, prefill 1" in found.problem.reason
    assert not found.complete


def test_a_role_that_is_not_set_is_not_waited_for() -> None:
    wanted, pools = {"prefill": None, "decode": 2}, {"decode": ("decode", 2)}
    given = {"decode": "2", "decode_active": "2", "decode_stable": "true", "observed_at": "100"}
    assert progress(KEY, pools, wanted, BEFORE, given, was_completed=False).complete


def test_two_pools_of_one_role_are_counted_together() -> None:
    pools = {"small": ("decode", 1), "large": ("decode", 1), "prefill": ("prefill", 1)}
    given = {**ASKED, **REPORT}
    done = progress(KEY, pools, WANTED, BEFORE, given, was_completed=False)
    assert (done.complete, done.pools["small"]) == (True, PoolCount(1, 1))
    short = progress(KEY, pools, WANTED, BEFORE, {**given, "decode_active": "1"}, was_completed=False)
    assert (short.complete, set(short.pools)) == (False, {"prefill"})


def test_a_worker_that_is_lost_later_is_a_problem() -> None:
    given = {**ASKED, **REPORT, "decode_active": "1"}
    found = progress(KEY, POOLS, WANTED, BEFORE, given, was_completed=True)
    assert found.problem is not None
    assert (found.phase, found.problem.reason) == (None, "workers that are active: 1 of 2 decode")


def test_what_was_passed_on_is_read_back_and_anything_else_is_nothing() -> None:
    assert passed_on_hash(BEFORE.fields()) == BEFORE
    assert passed_on_hash({}) is None
    assert passed_on_hash({"incarnation": "one", "decision_id": "x"}) is None
    assert is_absent({"prefill_active": "1"})
    assert not is_absent({"decode": "1"})
