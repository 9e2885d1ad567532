"""From device ids and processes to pods."""

from __future__ import annotations

import pytest

from agent.core.cgroup import identify
from agent.core.devices import Assignment, PodRef, physical_gpu
from agent.core.ownership import Pod, join, pod_of_process

UID, STATIC, CID = "0b7632a2-a56e-4278-987a-22de18008dbe", "bd12dd3393227d950605a2444b13c27a", "9" * 64
G0, G1 = "GPU-00000000-0000-0000-0000-000000000000", "GPU-11111111-0000-0000-0000-000000000000"
GPUS = frozenset({G0, G1})
A, B = Pod(UID, PodRef("ns", "a")), Pod("other", PodRef("ns", "b"), containers={CID: "engine"})


def given(pod: Pod, device: str) -> Assignment:
    return Assignment(pod.ref, device, f"main-{pod.ref.name}")


@pytest.mark.parametrize(
    ("device", "gpu"),
    [
        (G0, G0),
        (f"{G0}::3", G0),
        ("MIG-aaaa", G1),
        ("MIG-aaaa::0", G1),
        (f"MIG-{G1}/3/0", G1),
        ("MIG-GPU-99999999-0000-0000-0000-000000000000/3/0", None),
        ("GPU-99999999-0000-0000-0000-000000000000", None),
        ("0", None),
        ("", None),
    ],
)
def test_every_form_of_device_id_names_its_physical_gpu_or_none(device: str, gpu: str | None) -> None:
    assert physical_gpu(device, GPUS, {"MIG-aaaa": G1}) == gpu


def test_the_kubelet_is_believed_before_any_process_runs() -> None:
    found = join(GPUS, {}, [given(A, G0), given(B, f"{G1}::0"), given(A, f"{G1}::1")], {}, [A, B])
    assert found.pods == {G0: (A.ref,), G1: (B.ref, A.ref)}
    assert found.containers == {G0: "main-a", G1: "main-b"}, "the first pod's"
    assert found.conflicts == {}


def test_a_process_of_a_pod_that_the_kubelet_does_not_name_is_a_conflict() -> None:
    stranger = identify(f"0::/kubepods/pod{UID}/{CID}")
    found = join(GPUS, {}, [given(B, G0)], {G0: [stranger]}, [A, B])
    assert found.pods[G0] == (B.ref, A.ref)
    assert "ns/a" in found.conflicts[G0]


def test_without_a_kubelet_the_processes_decide() -> None:
    inside = identify(f"0::/kubepods/pod{UID}/{'8' * 64}")
    hidden = identify(f"0::/../cri-containerd-{CID}.scope")
    host = identify("0::/system.slice/nvidia-persistenced.service")
    found = join(GPUS, {}, None, {G0: [inside, host], G1: [hidden]}, [A, B])
    assert found.pods == {G0: (A.ref,), G1: (B.ref,)}
    assert found.containers == {G1: "engine"}, "the other container's name is not known"


def test_a_static_pod_is_known_by_its_manifest_hash_not_by_its_mirror() -> None:
    mirror = Pod(STATIC, PodRef("ns", "mirror"))
    static = Pod("mirror-uid", PodRef("ns", "static"), config_hash=STATIC)
    identity = identify(f"0::/kubepods.slice/kubepods-pod{STATIC}.slice/crio-{CID}.scope")
    assert pod_of_process(identity, [mirror, static]) is static


def test_a_monitor_uses_no_gpu() -> None:
    identity = identify(f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-conmon-{CID}.scope")
    assert pod_of_process(identity, [A, B]) is None


def test_a_device_of_another_node_is_reported_not_guessed() -> None:
    found = join(GPUS, {}, [given(A, "GPU-77777777-0000-0000-0000-000000000000")], {}, [A])
    assert (found.pods, found.unknown_devices) == ({}, ("GPU-77777777-0000-0000-0000-000000000000",))
