"""No text without a pod's segment ever yields a pod id, whatever bytes surround it."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.core.cgroup import CgroupFailure, identify
from tests.sizes_of_runs import examples

HEX = "0123456789abcdef"
uuids = st.uuids().map(str)
hex32 = st.text(HEX, min_size=32, max_size=32)
hex64 = st.text(HEX, min_size=64, max_size=64)
pod_free_segments = st.one_of(
    st.sampled_from(
        [
            "kubepods",
            "kubepods.slice",
            "docker",
            "system.slice",
            "..",
            "container",
            "init.scope",
            "",
            "user@1000.service",
        ]
    ),
    hex64,
    hex32,
    uuids,
    hex64.map("crio-{}.scope".format),
    hex64.map("libpod-{}.scope".format),
    hex64.map("libpod-conmon-{}.scope".format),
    uuids.map("xpod{}".format),
    uuids.map("pod{}x".format),
    uuids.map("pod_{}".format),
    st.text(HEX, max_size=31).map("pod{}".format),
    st.text(HEX, min_size=33, max_size=80).map("pod{}".format),
    st.text(alphabet="pod-_:.abcdef0123456789 slicekubs", max_size=60).filter(lambda text: "pod" not in text),
)
lines = st.builds(
    lambda head, segments: head + "/" + "/".join(segments),
    st.sampled_from(["0::", "9:name=systemd:", "12:cpu,cpuacct:", ""]),
    st.lists(pod_free_segments, max_size=8),
)


@settings(max_examples=examples(100, 500))
@given(st.lists(lines, max_size=6).map("\n".join))
def test_lines_without_a_pod_yield_none(text: str) -> None:
    found = identify(text)
    assert found.pod_uid is None
    assert found.failure is CgroupFailure.NO_POD


@settings(max_examples=examples(100, 500))
@given(st.text(max_size=400))
@example("0::/kubepods/pod\x00")
def test_any_text_is_read_without_an_exception_and_an_id_is_always_quoted_from_it(text: str) -> None:
    found = identify(text)
    if found.pod_uid is not None:
        assert re.search("pod" + found.pod_uid.replace("-", "[-_]"), text)
    if found.container_id is not None:
        assert found.container_id in text


@given(uuids | hex32, hex64, st.lists(lines, max_size=3), st.lists(lines, max_size=3), st.booleans())
def test_a_pod_is_found_among_any_other_lines(
    uid: str, cid: str, before: list[str], after: list[str], systemd: bool
) -> None:
    layout = (
        "0::/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{}.scope" if systemd else "4:cpu:/kubepods/pod{}/{}"
    )
    line = layout.format(uid.replace("-", "_") if systemd else uid, cid)
    found = identify("\n".join([*before, line, *after]))
    assert (found.pod_uid, found.container_id, found.static_pod) == (uid, cid, "-" not in uid)


@given(uuids, uuids, hex64)
def test_two_pods_are_never_one(first: str, second: str, cid: str) -> None:
    found = identify(f"1:a:/kubepods/pod{first}/{cid}\n2:b:/kubepods/pod{second}/{cid}")
    assert found.pod_uid == (first if first == second else None)


PREFIXES = ("0::", "9:name=systemd:", "12:cpu,cpuacct:", "3::", "")
"""Of a line: v2, v1 by name or by controllers, a controller left out, a bare path."""
ROOTS = ("", "/kubelet", "/docker/" + "d" * 64, "/system.slice/minikube.scope", "/..")
QOS = ("", "burstable", "besteffort")
RUNTIMES = {
    "containerd": ("{}", "cri-containerd-{}.scope"),
    "cri-o": ("crio-{}", "crio-{}.scope"),
    "docker": ("{}", "docker-{}.scope"),
    "cri-dockerd": ("cri-dockerd-{}", "cri-dockerd-{}.scope"),
    "podman": ("libpod-{}", "libpod-{}.scope"),
}
"""Names of a container's group: under cgroupfs, under systemd."""


def _written(uid: str, separator: str) -> str:
    return uid.replace("-", separator)


@given(
    uuids | hex32,
    hex64,
    st.sampled_from(PREFIXES),
    st.sampled_from(ROOTS),
    st.sampled_from(QOS),
    st.sampled_from(sorted(RUNTIMES)),
    st.sampled_from(["-", "_"]),
    st.sampled_from(["cgroupfs", "systemd", "systemd by colon"]),
    st.sampled_from(["", "/container", "/init.scope"]),
)
@settings(max_examples=examples(400, 2000))
def test_every_spelling_of_driver_and_runtime_is_read(
    uid: str, cid: str, prefix: str, root: str, qos: str, runtime: str, dash: str, driver: str, below: str
) -> None:
    plain, scope = RUNTIMES[runtime]
    pod = f"pod{_written(uid, dash)}"
    if driver == "cgroupfs":
        path = "/".join(["kubepods", *([qos] if qos else []), pod, plain.format(cid)])
    else:
        slices = [
            "kubepods",
            *([f"kubepods-{qos}"] if qos else []),
            "-".join(["kubepods", *([qos] if qos else []), pod]),
        ]
        above = "/".join(f"{each}.slice" for each in slices)
        path = f"{above}/{scope.format(cid)}" if driver == "systemd" else f"{above}:cri-containerd:{cid}"
    found = identify(f"{prefix}{root}/{path}{below}\n")
    assert (found.pod_uid, found.container_id, found.static_pod) == (uid, cid, "-" not in uid)
