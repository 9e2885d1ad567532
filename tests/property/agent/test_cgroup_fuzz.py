"""No text without a pod's segment ever yields a pod id, whatever bytes surround it."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.core.cgroup import CgroupFailure, identify

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
    uuids.map("kubepods-pod{}.slice".format),
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


@settings(max_examples=500)
@given(st.lists(lines, max_size=6).map("\n".join))
def test_lines_without_a_pod_yield_none(text: str) -> None:
    found = identify(text)
    assert found.pod_uid is None
    assert found.failure is CgroupFailure.NO_POD


@settings(max_examples=500)
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
