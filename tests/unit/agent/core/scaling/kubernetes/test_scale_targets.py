"""Targets as text, and the component that an adapter stands for, in both versions."""

from __future__ import annotations

import pytest

from agent.core.scaling.kubernetes.scale_targets import (
    AdapterReference,
    BadTargetError,
    ScaleTarget,
    kind_of,
    pod_labels,
    reference_of,
    target_of,
)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("deployments.v1.apps/chat-decode", ScaleTarget("apps", "v1", "deployments", "ns", "chat-decode")),
        (
            "leaderworkersets.v1.leaderworkerset.x-k8s.io/d",
            ScaleTarget("leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "ns", "d"),
        ),
    ],
)
def test_a_target_is_written_as_kubectl_writes_it(text: str, target: ScaleTarget) -> None:
    assert target_of(text, "ns") == target
    assert not target.is_adapter


@pytest.mark.parametrize(
    "text", ["", "deployments/x", "deployments.apps/x", "deployments.v1.apps/", "deployments.v1.apps/../x", "a b/c"]
)
def test_what_names_no_object_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadTargetError, match=r"deployments\.v1\.apps/chat-decode"):
        target_of(text, "ns")


def test_an_adapter_names_its_component_in_both_versions() -> None:
    assert target_of("dynamographdeploymentscalingadapters.v1beta1.nvidia.com/chat-decode", "ns").is_adapter
    for key in ("componentName", "serviceName"):
        reference = reference_of({"spec": {"dgdRef": {"name": "chat", key: "Decode"}}})
        assert reference == AdapterReference("chat", "Decode")
    assert reference_of({"spec": {"dgdRef": {"name": "chat", "componentGroupName": "both"}}}) is None
    assert reference_of({}) is None


def test_kinds_of_built_in_objects_are_known_without_their_items() -> None:
    engine = ScaleTarget("x.test", "v1", "engines", "ns", "e")
    assert kind_of(target_of("statefulsets.v1.apps/s", "ns"), {}) == "StatefulSet"
    assert (kind_of(engine, {"kind": "Engine"}), kind_of(engine, {})) == ("Engine", "")


def test_the_labels_of_pods_come_from_the_selector_or_from_what_the_status_shows() -> None:
    deployment = target_of("deployments.v1.apps/d", "ns")
    assert pod_labels(deployment, {"spec": {"selector": {"matchLabels": {"a": "b"}}}}) == {"a": "b"}
    engine = ScaleTarget("x.test", "v1", "engines", "ns", "e")
    assert pod_labels(engine, {"status": {"selector": "a=b,c=d"}}) == {"a": "b", "c": "d"}
    assert pod_labels(engine, {"status": {"selector": "a in (b)"}}) == pod_labels(engine, {}) == {}
    gang = target_of("leaderworkersets.v1.leaderworkerset.x-k8s.io/d", "ns")
    assert pod_labels(gang, {}) == {"leaderworkerset.sigs.k8s.io/name": "d"}
