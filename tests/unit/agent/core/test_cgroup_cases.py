"""The cgroup reader on real lines, each alone and among the others of its file, and on lines made to mislead."""

from __future__ import annotations

import json

import pytest

from agent.core.cgroup import CgroupFailure, identify
from tests.shared_data import find_shared, shared

UID = "0b7632a2-a56e-4278-987a-22de18008dbe"
OTHER = "bbbbbbbb-1111-2222-3333-444444444444"
CID = "9" * 64


def _cases() -> list[dict[str, object]]:
    path = find_shared("cgroup_cases.json")
    return json.loads(path.read_text())["cases"] if path else []


@pytest.mark.parametrize("case", _cases(), ids=lambda case: str(case["text"])[-40:])
def test_a_real_line_gives_the_pod_and_container_it_names(case: dict[str, object]) -> None:
    found = identify(str(case["text"]))
    assert found.pod_uid == case["pod_uid"]
    assert found.container_id == case["container_id"]
    assert found.static_pod == case["static_pod"]


def test_all_real_cases_were_there() -> None:
    assert len(json.loads(shared("cgroup_cases.json").read_text())["cases"]) >= 27


def test_the_pod_is_found_on_any_line_of_the_file() -> None:
    text = f"3:rdma:/\n12:hugetlb:/kubepods/burstable/pod{UID}/{CID}\n0::/system.slice/crio.service\n"
    assert (identify(text).pod_uid, identify(text).container_id) == (UID, CID)


def test_two_pods_on_two_lines_are_refused() -> None:
    found = identify(f"1:cpu:/kubepods/pod{UID}/{CID}\n2:memory:/kubepods/pod{OTHER}/{CID}\n")
    assert found.failure is CgroupFailure.CONFLICT
    assert found.pod_uid is None
    assert UID in found.detail
    assert OTHER in found.detail


def test_a_container_cannot_pass_for_another_pod_by_naming_its_own_group_like_one() -> None:
    found = identify(f"0::/kubepods/pod{UID}/{CID}/pod{OTHER}/{CID}\n")
    assert (found.failure, found.pod_uid) == (CgroupFailure.CONFLICT, None)


def test_the_runtime_monitor_is_distinguished_from_the_workload() -> None:
    found = identify(f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-conmon-{CID}.scope")
    assert found.monitor
    assert found.container_id is None


@pytest.mark.parametrize("below", ["", "/init.scope", "/container", "/system.slice/sshd.service"])
def test_groups_that_the_workload_makes_below_its_container_change_nothing(below: str) -> None:
    found = identify(f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-{CID}.scope{below}")
    assert (found.pod_uid, found.container_id) == (UID, CID)


def test_a_removed_group_is_still_read() -> None:
    assert identify(f"0::/kubepods/pod{UID}/{CID} (deleted)").container_id == CID


@pytest.mark.parametrize(
    "path",
    [
        "/kubepods/podx",
        f"/kubepods/xpod{UID}",
        f"/kubepods/pod{UID}x",
        f"/kubepods/pod{UID.replace('-', '')[:31]}",
        f"/user.slice/libpod-{CID}.scope",
        f"/notpods-pod{UID.replace('-', '_')}.slice",
        "",
        "/",
    ],
)
def test_what_only_resembles_a_pod_is_none(path: str) -> None:
    assert identify(f"0::{path}").pod_uid is None


@pytest.mark.parametrize(
    "line",
    [
        f"/kubepods/burstable/pod{UID}/{CID}",
        f"kubepods/burstable/pod{UID}/{CID}",
        f"0::/kubepods/besteffort/pod{UID.replace('-', '_')}/{CID}",
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID}.slice/cri-containerd-{CID}.scope",
        f"::/kubepods/pod{UID}/{CID}",
    ],
)
def test_spellings_that_no_kubelet_of_the_recorded_lines_wrote(line: str) -> None:
    found = identify(line)
    assert (found.pod_uid, found.container_id) == (UID, CID)
