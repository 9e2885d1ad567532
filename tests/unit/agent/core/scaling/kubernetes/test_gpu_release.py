"""GPUs of pods that left: idle only by a report that came after, and by no report that names them."""

from __future__ import annotations

import pytest

from agent.core.scaling.kubernetes.gpu_release import (
    SILENT_S,
    GpuHolder,
    GpuHolders,
    LeftPod,
    PodPlace,
    PoolGpus,
    release,
)

NOW_S = 21.0
OWN = PoolGpus("ns", {"stays": "n1"}, "graph", "decode")
LEFT = {PodPlace("gone", "n1"): LeftPod(10.0)}
STAYS = GpuHolder("ns/stays", "graph", "Decode")
GONE = GpuHolder("ns/gone", "graph", "Decode")
FOREIGN = GpuHolder("other/gone", "graph", "Decode")


@pytest.mark.parametrize(
    ("report", "idle", "waits"),
    [
        (GpuHolders((STAYS,), 11.0), True, False),
        (GpuHolders((STAYS, FOREIGN), 11.0), True, False),
        (GpuHolders((STAYS, GONE), 11.0), False, True),
        (GpuHolders((STAYS,), 9.0), None, True),
        (GpuHolders((STAYS, GONE), 9.0), False, True),
        (None, None, True),
    ],
)
def test_a_pod_s_gpus_are_idle_when_its_node_reports_so_afterwards(
    report: GpuHolders | None, idle: bool | None, waits: bool
) -> None:
    nodes = {"n2": GpuHolders((), 20.0)} | ({} if report is None else {"n1": report})
    found = release(OWN, LEFT, nodes, NOW_S)
    assert (found.idle, bool(found.waiting)) == (idle, waits)
    assert found.nodes == (frozenset({"n1"}) if waits else frozenset())


def test_what_left_before_this_process_began_is_found_by_its_labels() -> None:
    nodes = {"n1": GpuHolders((GONE,), 1.0)}
    found = release(OWN, {}, nodes, NOW_S)
    assert found.idle is False
    assert release(OWN, found.waiting, {"n1": GpuHolders((), 2.0)}, NOW_S).idle is True
    assert release(PoolGpus("ns", {"gone": "n1"}, "graph", "decode"), {}, nodes, NOW_S).idle is True
    assert release(PoolGpus("ns", {}, "graph", "prefill"), {}, nodes, NOW_S).idle is True
    assert release(PoolGpus("ns", {}), {}, nodes, NOW_S).idle is True


def test_a_pod_without_a_node_held_nothing_and_without_telemetry_nothing_is_known() -> None:
    nodes = {"n1": GpuHolders((), 1.0)}
    assert release(OWN, {PodPlace("gone", ""): LeftPod(10.0)}, nodes, NOW_S).idle is True
    assert release(OWN, {}, {}, NOW_S).idle is None


@pytest.mark.parametrize("graph", ["graph", ""])
@pytest.mark.parametrize(
    ("node", "received_s", "idle"), [("n1", 11.0, True), ("n1", 9.0, None), ("n2", 11.0, False), ("", 11.0, False)]
)
def test_a_pod_that_came_back_under_its_name_holds_its_own_gpus(
    graph: str, node: str, received_s: float, idle: bool | None
) -> None:
    """A StatefulSet's: on the same node its successor is what the node names, on another one it is not."""
    own = PoolGpus("ns", {"gone": node}, graph, "decode" if graph else "")
    found = release(own, LEFT, {"n1": GpuHolders((GONE,), received_s)}, NOW_S)
    assert (found.idle, bool(found.waiting)) == (idle, idle is not True)


def test_a_pod_that_asked_for_no_device_is_waited_for_only_where_a_node_names_it() -> None:
    left = {PodPlace("gone", "n1"): LeftPod(10.0, may_hold_gpus=False)}
    elsewhere = {"n2": GpuHolders((), 20.0)}
    assert release(OWN, left, elsewhere, NOW_S) == release(OWN, {}, elsewhere, NOW_S)
    assert release(OWN, left, {**elsewhere, "n1": GpuHolders((GONE,), 20.0)}, NOW_S).idle is False


@pytest.mark.parametrize("silent", [{}, {"n1": GpuHolders((STAYS, GONE), 11.0)}], ids=["without agent", "lost"])
@pytest.mark.parametrize("graph", ["graph", ""])
def test_a_silent_node_s_pods_are_forgotten_after_a_while_and_never_called_idle(
    silent: dict[str, GpuHolders], graph: str
) -> None:
    own = PoolGpus("ns", {"stays": "n1"}, graph, "decode" if graph else "")
    late_s = NOW_S + SILENT_S
    before = release(own, LEFT, {**silent, "n2": GpuHolders((), NOW_S)}, NOW_S)
    assert (before.idle is not True, set(before.waiting), before.lost) == (True, set(LEFT), frozenset())
    after = release(own, before.waiting, {**silent, "n2": GpuHolders((), late_s)}, late_s)
    assert (after.idle, len(after.waiting), set(after.lost)) == (None, 0, {"n1"})
    # The next decision is judged by the nodes that report.
    assert release(own, after.waiting, {**silent, "n2": GpuHolders((), late_s)}, late_s).idle is True
    assert release(own, {}, silent, late_s).idle is None
