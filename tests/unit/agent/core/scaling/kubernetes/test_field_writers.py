"""Who wrote the count."""

from __future__ import annotations

from typing import Any

import pytest

from agent.core.scaling.kubernetes.field_writers import count_writer, count_writer_kind
from agent.core.scaling.scaling_types import WriterKind

COUNT: dict[str, Any] = {"f:spec": {"f:replicas": {}}}


def entry(manager: str, fields: object = COUNT) -> dict[str, object]:
    return {"manager": manager, "fieldsV1": fields}


@pytest.mark.parametrize(
    ("manager", "words"),
    [
        ("wattscale", ""),
        ("kubectl-edit", "a person with kubectl-edit"),
        ("kube-controller-manager", "a HorizontalPodAutoscaler (kube-controller-manager)"),
        (
            "OpenAPI-Generator",
            "a Python client without a name of its own, such as Dynamo's planner (OpenAPI-Generator)",
        ),
        ("argocd", "argocd"),
    ],
)
def test_the_owner_of_the_count_is_named_and_we_are_not(manager: str, words: str) -> None:
    assert count_writer([entry("somebody", {"f:spec": {"f:image": {}}}), entry(manager)]) == words


def test_without_an_owner_none_is_named() -> None:
    assert count_writer(None) == count_writer([]) == count_writer([entry("x", {"f:status": {"f:replicas": {}}})]) == ""
    assert count_writer([{"manager": "x"}]) == ""


@pytest.mark.parametrize(
    ("managers", "kind"),
    [
        (("wattscale", "keda"), WriterKind.AUTOSCALER),
        (("kubectl-edit", "kube-controller-manager"), WriterKind.AUTOSCALER),
        (("kubectl-scale", "argocd"), WriterKind.PERSON),
        (("argocd",), WriterKind.OTHER),
        (("wattscale",), WriterKind.OTHER),
        ((), WriterKind.OTHER),
    ],
)
def test_the_owners_of_the_count_are_of_one_kind(managers: tuple[str, ...], kind: WriterKind) -> None:
    others = entry("kube-controller-manager", {"f:status": {"f:replicas": {}}})
    assert count_writer_kind([others, *map(entry, managers)]) == kind
