"""One pool by its target, graph and pods, and what the core of connectors then does about a decision."""

from __future__ import annotations

from typing import Any

import pytest

from agent.core.scaling.counts import compare
from agent.core.scaling.kubernetes.pool_views import (
    Counted,
    ViewSettings,
    graph_component,
    pods_problem,
    pool_seen,
    workload,
)
from agent.core.scaling.kubernetes.workload_pods import WorkerPod, of_labels, worker_pod
from agent.core.scaling.scaling_types import ReplicaDecision, ScalingPhase, SetReplicas, WriterKind

NOW_S = 1_000_000.0


def adapter(replicas: int, manager: str = "wattscale") -> dict[str, Any]:
    owner = {"manager": manager, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    return {
        "metadata": {"resourceVersion": "7", "managedFields": [owner]},
        "spec": {"replicas": replicas},
        "status": {"replicas": replicas},
    }


def graph(ready: int, *, replicas: int | None = None, observed: int = 2, **status: Any) -> dict[str, Any]:
    count = ready if replicas is None else replicas
    one = {"componentKind": "PodClique", "replicas": count, "updatedReplicas": count, "readyReplicas": ready}
    return {
        "metadata": {"generation": 2},
        "status": {"observedGeneration": observed, "components": {"decode": one}, **status},
    }


def serving(count: int, **more: Any) -> list[WorkerPod]:
    return [WorkerPod(f"p{index}", ready=True, **more) for index in range(count)]


def test_an_adapter_s_status_is_an_echo_and_completes_nothing() -> None:
    seen = pool_seen("decode", adapter(3), graph_component(graph(1, replicas=3), "Decode"), serving(1), NOW_S)
    assert (seen.wanted, seen.ready, seen.version) == (3, 1, "7")
    progress = compare(ReplicaDecision(4, "i", {"decode": 3}), {"decode": seen}, {}).progress
    assert (progress.complete, progress.phase) == (False, ScalingPhase.STARTING)


def test_a_status_of_an_older_spec_completes_nothing() -> None:
    stale = graph_component(graph(3, observed=1), "decode")
    assert pool_seen("decode", adapter(3), stale, serving(3), NOW_S).ready == 2
    assert pool_seen("decode", adapter(0), stale, [], NOW_S).ready == 0


def test_pods_that_leave_do_not_serve_and_keep_the_phase_at_draining() -> None:
    pods = [*serving(1), WorkerPod("gone", ready=True, terminating=True)]
    seen = pool_seen("decode", adapter(1), graph_component(graph(2, replicas=1), "decode"), pods, NOW_S)
    assert (seen.ready, seen.leaving) == (1, 1)
    decision = ReplicaDecision(4, "i", {"decode": 1})
    assert compare(decision, {"decode": seen}, {}).progress.phase is ScalingPhase.DRAINING
    for idle, phase in ((False, ScalingPhase.DRAINING), (True, ScalingPhase.DRAINED)):
        left = pool_seen("decode", adapter(1), graph_component(graph(1), "decode"), serving(1), NOW_S, gpus_idle=idle)
        assert compare(decision, {"decode": left}, {}).progress.phase is phase


def test_pods_that_were_not_removed_yet_are_leaving() -> None:
    seen = pool_seen("decode", adapter(1), graph_component(graph(3), "decode"), serving(3), NOW_S)
    assert seen.leaving == 2


def test_pods_that_are_not_wanted_any_more_fail_no_decision() -> None:
    pods = [*serving(2), WorkerPod("waiting", unschedulable="no GPU", unschedulable_since_s=0.0)]
    counted = graph_component(graph(2, replicas=3), "decode")
    surplus = {"decode": pool_seen("decode", adapter(2), counted, pods, NOW_S)}
    for count in (2, 3):
        assert compare(ReplicaDecision(5, "i", {"decode": count}), surplus, {"decode": 2}).progress.problem is None
    lacking = {"decode": pool_seen("decode", adapter(3), counted, pods, NOW_S)}
    fewer = compare(ReplicaDecision(5, "i", {"decode": 2}), lacking, {"decode": 3}).progress
    assert fewer.problem is None
    more = compare(ReplicaDecision(5, "i", {"decode": 3}), lacking, {"decode": 3}).progress
    assert more.problem is not None
    assert not more.problem.retryable


def test_waiting_for_capacity_begins_when_the_count_was_raised() -> None:
    pods = [*serving(2), WorkerPod("waiting", unschedulable="no GPU", unschedulable_since_s=NOW_S - 1000)]
    counted = graph_component(graph(2, replicas=3), "decode")
    for raised_s, lasting in ((0.0, False), (NOW_S - 10, True)):
        seen = pool_seen("decode", adapter(3), counted, pods, NOW_S, raised_s=raised_s)
        assert seen.problem is not None
        assert seen.problem.retryable is lasting


@pytest.mark.parametrize(
    "status",
    [
        {"restart": {"phase": "Restarting", "observedID": "r1"}},
        {"restart": {"phase": "Pending", "observedID": "r1"}},
        {"rollingUpdate": {"phase": "InProgress"}},
    ],
)
def test_nothing_is_raised_during_a_restart_or_a_rolling_update_but_lowered(status: dict[str, Any]) -> None:
    counted = graph_component(graph(2, **status), "decode")
    seen = pool_seen("decode", adapter(2), counted, serving(2), NOW_S)
    up = compare(ReplicaDecision(4, "i", {"decode": 3}), {"decode": seen}, {"decode": 2})
    assert up.actions == ()
    assert up.progress.problem is not None
    assert "nothing is raised now" in up.progress.problem.reason
    down = compare(ReplicaDecision(4, "i", {"decode": 1}), {"decode": seen}, {"decode": 2})
    assert down.actions == (SetReplicas("decode", 1, 2, "7"),)


def test_what_has_ended_holds_nothing() -> None:
    ended: dict[str, Any] = {
        "restart": {"phase": "Completed"},
        "rollingUpdate": {"phase": "InProgress", "updatedComponents": ["Decode"]},
    }
    assert graph_component(graph(2, **ended), "decode").hold == ""
    rolling = graph(2)
    rolling["status"]["components"]["decode"]["updatedReplicas"] = 1
    assert graph_component(rolling, "decode").hold == "a rollout has updated 1 of 2 replicas"


def test_a_gang_s_replica_is_all_its_pods() -> None:
    found = graph(1)
    found["status"]["components"]["decode"] = {
        "componentKind": "PodCliqueScalingGroup",
        "replicas": 2,
        "updatedReplicas": 2,
        "availableReplicas": 1,
    }
    counted = graph_component(found, "decode")
    assert counted == Counted(ready=1, observed=True, gang=True, at_least=1)
    seen = pool_seen("decode", adapter(2), counted, serving(6), NOW_S)
    assert (seen.ready, seen.leaving) == (1, 0)


def test_a_component_that_the_graph_does_not_show_serves_nothing() -> None:
    assert graph_component(graph(2), "prefill").ready == 0
    assert graph_component({}, "prefill") == Counted(ready=0, observed=True)


@pytest.mark.parametrize(
    ("kind", "status", "ready"),
    [
        ("Deployment", {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3}, 2),
        ("Deployment", {"replicas": 3, "updatedReplicas": 3}, 0),
        ("StatefulSet", {"replicas": 2, "availableReplicas": 1, "updatedReplicas": 2}, 1),
        ("Engine", {"replicas": 2}, 2),
    ],
)
def test_other_objects_report_their_ready_replicas(kind: str, status: dict[str, Any], ready: int) -> None:
    item = {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, **status}}
    assert workload(item, kind) == Counted(ready=ready, observed=True)
    assert not workload({"metadata": {"generation": 2}, "status": {"observedGeneration": 1}}, kind).observed


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "LeaderWorkerSet"])
def test_a_rollout_that_has_updated_no_replica_yet_is_one(kind: str) -> None:
    """These kinds leave a count of zero out."""
    status: dict[str, Any] = {"observedGeneration": 2, "replicas": 3, "readyReplicas": 3}
    item = {"metadata": {"generation": 2}, "status": status}
    assert workload(item, kind).hold == "a rollout has updated 0 of 3 replicas"
    status["updatedReplicas"] = 3
    assert not workload(item, kind).hold
    assert not workload({"metadata": {"generation": 1}, "status": {"observedGeneration": 1}}, kind).hold


def test_a_person_s_count_is_named_and_left_alone() -> None:
    seen = pool_seen("decode", adapter(5, "kubectl-edit"), graph_component(graph(5), "decode"), serving(5), NOW_S)
    result = compare(ReplicaDecision(4, "i", {"decode": 3}), {"decode": seen}, {"decode": 2})
    assert (result.actions, result.foreign) == ((), {"decode": WriterKind.PERSON})
    assert result.progress.problem is not None
    assert "a person with kubectl-edit set 5 replicas" in result.progress.problem.reason


def test_an_autoscaler_is_named_and_not_fought_unless_our_count_wins() -> None:
    decision = ReplicaDecision(4, "i", {"decode": 3})
    name = "HorizontalPodAutoscaler h"
    counted = graph_component(graph(2), "decode")
    seen = pool_seen("decode", adapter(2), counted, serving(2), NOW_S, rival=name)
    result = compare(decision, {"decode": seen}, {})
    assert result.actions == ()
    assert result.progress.problem is not None
    assert name in result.progress.problem.reason
    ours = ViewSettings(overwrite=True)
    seen = pool_seen("decode", adapter(2), counted, serving(2), NOW_S, rival=name, settings=ours)
    assert compare(decision, {"decode": seen}, {}, overwrite=True).actions == (SetReplicas("decode", 3, 2, "7"),)


def test_one_role_s_crashing_pod_does_not_block_the_other_role() -> None:
    crashing = WorkerPod("bad", stuck="container main: CrashLoopBackOff after 4 restarts")
    counted = graph_component(graph(1, replicas=2), "decode")
    decode = pool_seen("decode", adapter(2), counted, [*serving(1), crashing], NOW_S)
    prefill = pool_seen("prefill", adapter(1), Counted(1, observed=True), serving(1), NOW_S)
    result = compare(ReplicaDecision(4, "i", {"decode": 2, "prefill": 4}), {"decode": decode, "prefill": prefill}, {})
    assert result.actions == (SetReplicas("prefill", 4, 1, "7"),)
    assert result.progress.problem is not None
    assert "decode: pod bad: container main: CrashLoopBackOff" in result.progress.problem.reason


def unschedulable(since_s: float) -> WorkerPod:
    return WorkerPod("p9", unschedulable="0/4 nodes: insufficient nvidia.com/gpu", unschedulable_since_s=since_s)


def test_the_scheduler_s_reason_is_given_and_in_time_the_decision_fails_for_good() -> None:
    early = pods_problem("decode", [unschedulable(NOW_S - 10)], NOW_S, 600.0)
    late = pods_problem("decode", [unschedulable(NOW_S - 600), unschedulable(NOW_S - 5)], NOW_S, 600.0)
    assert early is not None
    assert (early.retryable, early.reason) == (
        True,
        "decode: 1 pod cannot be scheduled: 0/4 nodes: insufficient nvidia.com/gpu",
    )
    assert late is not None
    assert not late.retryable
    assert late.reason.startswith("decode: insufficient_capacity: 2 pods cannot be scheduled")
    leaving = WorkerPod("p", terminating=True, stuck="x", unschedulable="y", unschedulable_since_s=0.0)
    assert pods_problem("decode", [leaving, *serving(1)], NOW_S, 600.0) is None


def test_a_decision_that_found_no_room_gives_back_what_was_not_placed() -> None:
    pods = [*serving(2), unschedulable(NOW_S - 700)]
    counted = graph_component(graph(2, replicas=3), "decode")
    seen = pool_seen("decode", adapter(3), counted, pods, NOW_S)
    result = compare(ReplicaDecision(4, "i", {"decode": 3}), {"decode": seen}, {"decode": 3})
    assert result.actions == (SetReplicas("decode", 2, 3, "7"),)
    assert (result.progress.complete, result.foreign) == (False, {})
    assert result.progress.problem is not None
    assert not result.progress.problem.retryable
    gang = pool_seen("decode", adapter(3), Counted(1, observed=True, gang=True), pods, NOW_S)
    assert gang.room == 1
    waits = pool_seen("decode", adapter(3), counted, [*serving(2), unschedulable(NOW_S - 1)], NOW_S)
    assert waits.room is None


def test_a_pod_object_becomes_a_value() -> None:
    labels = {"app": "a", "role": "decode"}
    item: dict[str, Any] = {
        "metadata": {"name": "p", "labels": labels, "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {"name": "main", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
            ],
        },
    }
    crash = "container main: CrashLoopBackOff after 4 restarts"
    assert worker_pod(item) == WorkerPod("p", labels, ready=True, terminating=True, stuck=crash, may_hold_gpus=False)
    refused = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "no GPU",
        "lastTransitionTime": "1970-01-01T00:01:40Z",
    }
    pending = worker_pod({"metadata": {"name": "p"}, "status": {"phase": "Pending", "conditions": [refused]}})
    assert (pending.unschedulable, pending.unschedulable_since_s) == ("no GPU", 100.0)
    refused["lastTransitionTime"] = "yesterday"
    assert worker_pod({"metadata": {"name": "p"}, "status": {"conditions": [refused]}}).unschedulable_since_s is None


def test_pods_are_chosen_by_all_labels() -> None:
    pods = [
        WorkerPod("a", {"app": "x", "role": "decode"}),
        WorkerPod("b", {"app": "x"}),
        WorkerPod("c", {"app": "x", "role": "decode"}, finished=True),
    ]
    assert [one.name for one in of_labels(pods, {"app": "x", "role": "decode"})] == ["a"]
    assert of_labels(pods, {}) == ()


@pytest.mark.parametrize(
    ("spec", "asks"),
    [
        ({"containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]}, True),
        ({"containers": [{}], "initContainers": [{"resources": {"requests": {"amd.com/gpu": 1}}}]}, True),
        ({"containers": [{"resources": {"claims": [{"name": "gpu"}]}}], "resourceClaims": [{"name": "gpu"}]}, True),
        ({"containers": [{"resources": {"limits": {"cpu": "4", "memory": "8Gi", "hugepages-2Mi": "1Gi"}}}]}, False),
        ({"containers": [{"name": "main"}]}, False),
    ],
)
def test_only_a_pod_that_asks_for_a_device_or_a_claim_may_hold_gpus(spec: dict[str, Any], asks: bool) -> None:
    assert worker_pod({"metadata": {"name": "p"}, "spec": spec}).may_hold_gpus is asks


@pytest.mark.parametrize(
    ("status", "hold"),
    [
        # Starting: not yet updated, and no rollout.
        ({"replicas": 3, "availableReplicas": 1, "updatedReplicas": 1}, False),
        ({"replicas": 3, "availableReplicas": 3, "updatedReplicas": 1}, True),
        (
            {"replicas": 3, "availableReplicas": 2, "updatedReplicas": 2, "updateProgress": {"updateStartedAt": "t"}},
            True,
        ),
        ({"replicas": 1, "updateProgress": {"updateStartedAt": "t", "updateEndedAt": "u"}}, False),
    ],
)
def test_a_scaling_group_of_grove_is_updating_by_what_is_available_and_never_0(
    status: dict[str, Any], hold: bool
) -> None:
    counted = workload({"status": status}, "PodCliqueScalingGroup")
    assert (counted.ready, counted.gang, counted.at_least) == (status.get("availableReplicas", 0), True, 1)
    assert bool(counted.hold) is hold
    graph = {"status": {"components": {"d": {**status, "componentKind": "PodCliqueScalingGroup"}}}}
    assert (bool(graph_component(graph, "d").hold), graph_component(graph, "d").at_least) == (hold, 1)
    assert workload({"status": status}, "LeaderWorkerSet").at_least == 0
