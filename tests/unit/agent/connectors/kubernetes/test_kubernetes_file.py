"""Settings of the Kubernetes connector: one deployment or several, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.connectors.kubernetes.kubernetes_file import KubernetesFile

DEPLOYMENT = {"decode": "deployments.v1.apps/chat-decode"}


def test_one_deployment_and_several_are_the_same_to_the_connector() -> None:
    one = KubernetesFile.model_validate({"deployment": "chat", "namespace": "prod", "graph": "g"}).watched()
    several = {"namespace": "prod", "deployments": {"chat": {"graph": "g"}, "code": {"namespace": "x", "graph": "g"}}}
    many = KubernetesFile.model_validate(several).watched()
    assert many[0] == one[0]
    assert [(found.deployment, found.namespace) for found in many] == [("chat", "prod"), ("code", "x")]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"namespace": "prod", "graph": "g"}, "deployment: is needed"),
        ({"deployment": "chat", "graph": "g"}, "namespace is needed"),
        ({"deployment": "chat", "namespace": "prod"}, "either graph or targets"),
        ({"deployment": "chat", "namespace": "prod", "graph": "g", "targets": DEPLOYMENT}, "either graph or targets"),
        ({"deployment": "chat", "namespace": "prod", "deployments": {"a": {"graph": "g"}}}, "set either deployments"),
        ({"deployment": "chat", "namespace": "prod", "targets": {"decode": "chat"}}, "is not RESOURCE.VERSION.GROUP"),
        (
            {"namespace": "p", "deployments": {"a": {"targets": DEPLOYMENT}, "b": {"targets": DEPLOYMENT}}},
            "claimed by pool decode of a and by pool decode of b",
        ),
        (
            {"namespace": "p", "deployments": {"a": {"graph": "g"}, "b": {"graph": "g"}}},
            "graph g in p is claimed by",
        ),
        (
            {"deployment": "a", "namespace": "p", "targets": DEPLOYMENT | {"prefill": DEPLOYMENT["decode"]}},
            "claimed by pool decode of a and by pool prefill of a",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        KubernetesFile.model_validate(given)
