"""Power limits as annotations: which pods get which, in which order, and when a raise is due."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core.scaling.kubernetes.power_limits import (
    AnnotateLimit,
    PlannedLimit,
    PlannedLimits,
    PoolPods,
    limit_writes,
    lowers_hidden,
    still_there,
    whole_watts,
)
from agent.core.scaling.kubernetes.workload_pods import WorkerPod

POD = WorkerPod("a", uid="1", power_limit="300")


def decode(watts: int | None) -> dict[str, PlannedLimit]:
    return {"decode": PlannedLimit(watts)}


@pytest.mark.parametrize(
    ("now", "watts", "kind"),
    [
        ("", 300, "lower"),
        ("400", 300, "lower"),
        ("300", 300, ""),
        ("200", 300, "raise"),
        ("many", 300, "raise"),
        ("300", None, "raise"),
        ("", None, ""),
    ],
)
def test_a_first_limit_lowers_and_one_that_is_no_number_is_only_raised(now: str, watts: int | None, kind: str) -> None:
    pod = replace(POD, power_limit=now, own_power_limit=True)
    found = limit_writes(decode(watts), {"decode": PoolPods([pod])}, {})
    write = (AnnotateLimit("decode", "a", "1", watts, now),)
    assert (found.lowers, found.raises) == (write if kind == "lower" else (), write if kind == "raise" else ())


def test_a_rollout_and_a_pod_that_leaves_are_only_lowered() -> None:
    leaving, low = replace(POD, terminating=True), replace(POD, name="b", uid="2", power_limit="500")
    found = limit_writes(decode(400), {"decode": PoolPods([POD, low], hold="a rollout")}, {})
    assert ([one.pod for one in found.lowers], found.raises) == (["b"], ())
    found = limit_writes(decode(400), {"decode": PoolPods([leaving])}, {})
    assert (found.lowers, found.raises) == ((), ())
    assert limit_writes(decode(200), {"decode": PoolPods([leaving])}, {}).lowers


def test_pods_without_gpus_and_pools_without_a_plan_are_left_alone() -> None:
    frontend = replace(POD, may_hold_gpus=False)
    found = limit_writes(decode(200), {"decode": PoolPods([frontend]), "other": PoolPods([POD])}, {})
    assert (found.lowers, found.raises) == ((), ())


def test_another_writers_limit_stays_unless_ours_wins_and_one_that_we_never_wrote_is_taken_over() -> None:
    pools = {"decode": PoolPods([POD])}
    found = limit_writes(decode(200), pools, {"1": 400})
    assert (found.lowers, list(found.foreign)) == ((), ["decode"])
    assert limit_writes(decode(200), pools, {"1": 400}, overwrite=True).lowers
    assert limit_writes(decode(200), pools, {}).lowers
    assert not limit_writes(decode(200), pools, {"1": 300}).foreign
    # What a template set is not ours to take back.
    assert not limit_writes(decode(None), pools, {}).raises


def test_a_lower_is_due_at_once_and_a_raise_when_all_was_that_high_for_long_enough() -> None:
    planned = PlannedLimits(20.0)
    assert planned.lowest(0.0) == {}
    for at_s, watts in ((0.0, 400), (10.0, 300), (15.0, 500), (25.0, 450)):
        planned.take(decode(watts), at_s)
        assert planned.lowest(at_s)["decode"].watts == min(watts, 300 if at_s >= 10.0 else 400)
    assert not planned.settled(19.0)
    assert planned.settled(20.0)
    # The plan of 300 W was in force until 15 s.
    assert planned.lowest(34.0)["decode"].watts == 300
    assert planned.lowest(35.0)["decode"].watts == 450
    planned.take({}, 36.0)
    assert planned.lowest(36.0) == {}
    planned.take(decode(None), 37.0)
    assert planned.lowest(37.0) == decode(None)


def test_watts_are_whole_and_memory_ends_with_the_pod() -> None:
    assert [whole_watts(one) for one in (0.5, 1.0, 399.99, 2e6)] == [None, 1, 399, None]
    assert still_there({"1": 5, "2": 6}, [POD]) == {"1": 5}


def test_pods_that_are_not_known_now_may_have_to_be_lowered() -> None:
    """Then nothing is raised anywhere: the watts of a raise are those of a lower that was not written."""
    known, both = {"decode": PoolPods([POD])}, ["decode", "prefill"]
    plan = {**decode(300), "prefill": PlannedLimit(200)}
    assert lowers_hidden(plan, None, both)
    assert lowers_hidden(plan, known, both)
    assert not lowers_hidden(plan, known, ["decode"]), "a pool without a target has no pods here"
    assert not lowers_hidden(decode(300), known, both)
    # A write that was not seen yet may be a raise, over which a lower is due by now.
    assert lowers_hidden(decode(300), known, both, unseen=["2"])
    # Power that is not managed is not lowered.
    assert not lowers_hidden(decode(None), None, both)
    assert not lowers_hidden({}, None, both)
