"""The Role of a Kubernetes connector in the chart, against the table of rights that the connector asks for itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from agent.connectors.kubernetes.keyed_watch import WatchableCluster
from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
from agent.connectors.kubernetes.shared_watches import SharedWatches
from deploy.compose.connectors import connector_settings
from tests.integration.chart.rendered import Manifest, Rendered, rendered, rights

pytestmark = pytest.mark.xdist_group("chart")
NO_CLUSTER = cast("WatchableCluster", None)
"""The table is made before anything is asked."""
ADAPTER = "dynamographdeploymentscalingadapters.v1beta1.nvidia.com"
BASE: dict[str, object] = {"deployment": "prod-chat", "namespace": "prod"}
ADAPTERS: dict[str, object] = {
    **BASE,
    "targets": {"prefill": f"{ADAPTER}/chat-prefill", "decode": f"{ADAPTER}/chat-decode"},
}
SEVERAL: dict[str, object] = {
    "namespace": "prod",
    "deployments": {
        "prod-chat": {"targets": {"decode": f"{ADAPTER}/chat-decode"}},
        "prod-code": {"graph": "code"},
        "lab-chat": {"namespace": "lab", "targets": {"decode": f"{ADAPTER}/chat-decode"}},
        "lab-plain": {"namespace": "lab", "targets": {"decode": "deployments.v1.apps/plain"}},
    },
}
CONNECTORS: dict[str, dict[str, object]] = {
    "a graph": {**BASE, "graph": "chat"},
    "a graph, with limits and restarts": {**BASE, "graph": "chat", "annotate": True, "restart_graphs": True},
    "scaling adapters": ADAPTERS,
    "scaling adapters, with restarts": {**ADAPTERS, "restart_graphs": True},
    "several": SEVERAL,
    "several, with limits and restarts": {**SEVERAL, "annotate": True, "restart_graphs": True},
}
Rule = tuple[str, str, str, str, str]
"""Namespace, verb, API group, resource, and the name of the only object; empty: all."""


@pytest.mark.parametrize("case", ["dynamo", "keda"])
def test_a_role_of_the_shipped_cases_has_every_right_and_no_other(case: str, tmp_path: Path) -> None:
    release = rendered(case)
    assert _given(release) == _asked(release, tmp_path)


@pytest.mark.parametrize("name", CONNECTORS)
def test_a_role_has_every_right_that_its_connector_asks_for_and_no_other(name: str, tmp_path: Path) -> None:
    release = _release(CONNECTORS[name])
    assert _given(release) == _asked(release, tmp_path)


def test_counts_are_written_to_the_named_targets_only() -> None:
    for release in (rendered("keda"), _release(ADAPTERS)):
        scales = [rule for rule in _rules(release) if any(one.endswith("/scale") for one in rule["resources"])]
        assert scales
        assert all(len(rule["resourceNames"]) == 1 for rule in scales)


def _release(settings: dict[str, object]) -> Rendered:
    connectors = json.dumps({"chat": {"kind": "kubernetes", "settings": settings}})
    return rendered("minimal", extra=("--set-json", f"connectors={connectors}"))


def _rules(release: Rendered) -> list[Manifest]:
    return [rule for role in release.of("Role", "-chat") for rule in role["rules"]]


def _given(release: Rendered) -> set[Rule]:
    return {
        (role["metadata"]["namespace"], *right, name)
        for role in release.of("Role", "-chat")
        for rule in role["rules"]
        for right in rights({"rules": [rule]})
        for name in rule.get("resourceNames", [""])
    }


def _asked(release: Rendered, folder: Path) -> set[Rule]:
    """What the connector asks with SelfSubjectAccessReviews, by the settings that the chart writes for it."""
    file = folder / "connector.yaml"
    file.write_text(release.settings("-connector-chat"))
    settings = connector_settings.load(file, {}, {}, KubernetesFile).settings
    shared = SharedWatches(NO_CLUSTER, settings.watched(), annotate=settings.annotate, restart=settings.restart_graphs)
    # `_rights`, because `needed_rights` leaves out those of kinds that a cluster may lack.
    needed = {right for watch in shared.watches.values() for right in watch._rights}
    assert needed
    return {(right.namespace, right.verb, right.group, right.path, right.name) for right in needed}
