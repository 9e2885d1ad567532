"""GPUs of pods that left: idle only by a report that came after, and by no report that names them."""

from __future__ import annotations

import pytest

from agent.core.scaling.kubernetes.gpu_release import GpuHolder, GpuHolders, LeftPod, PoolGpus, release

OWN = PoolGpus("ns", ["stays"], "graph", "decode")
LEFT = {"gone": LeftPod("n1", 10.0)}
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
    found = release(OWN, LEFT, nodes)
    assert (found.idle, bool(found.waiting)) == (idle, waits)
    assert found.nodes == (frozenset({"n1"}) if waits else frozenset())


def test_what_left_before_this_process_began_is_found_by_its_labels() -> None:
    nodes = {"n1": GpuHolders((GONE,), 1.0)}
    assert release(OWN, {}, nodes).idle is False
    assert release(PoolGpus("ns", ["gone"], "graph", "decode"), {}, nodes).idle is True
    assert release(PoolGpus("ns", [], "graph", "prefill"), {}, nodes).idle is True
    assert release(PoolGpus("ns", []), {}, nodes).idle is True


def test_a_pod_without_a_node_held_nothing_and_without_telemetry_nothing_is_known() -> None:
    assert release(OWN, {"gone": LeftPod("", 10.0)}, {"n1": GpuHolders((), 1.0)}).idle is True
    assert release(OWN, {}, {}).idle is None
