"""The chart's autoscaler connector, and the manifests of its page, as Kubernetes and KEDA take them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from tests.integration.chart.rendered import NAMESPACE, RefusedError, Rendered, rendered
from tests.integration.chart.test_manifests import KINDS, problems_of
from tests.unit.agent.connectors.test_autoscaler_manifests import documents

pytestmark = pytest.mark.xdist_group("chart")
WITH_TOLERANCE = ("1.35", "1.36", "1.37")


def _ports(release: Rendered) -> dict[str, int]:
    return {one["name"]: one["port"] for one in release.one("Service", "-connector-auto")["spec"]["ports"]}


def _set(settings: dict[str, Any]) -> Rendered:
    """The case with other settings of the connector."""
    return rendered("keda", extra=("--set-json", f"connectors.auto.settings={json.dumps(settings)}"))


def test_keda_and_the_api_server_reach_every_port_that_is_served_and_no_other() -> None:
    release = rendered("keda")
    assert _ports(release) == {"metrics-api": 9104, "external-push": 9105, "external": 6443}
    served = yaml.safe_load(release.settings("-connector-auto"))
    assert served["external_scaler"]["port"] == 9105
    policy = release.one("NetworkPolicy", "-connector-auto")["spec"]
    assert [one["port"] for one in policy["ingress"][0]["ports"]] == [9104, 9105, 6443]
    (labels,) = (t["metadata"]["labels"] for c, t in release.pods() if c == "connector-auto")
    for chosen in (policy["podSelector"]["matchLabels"], release.one("Service", "-connector-auto")["spec"]["selector"]):
        assert chosen.items() <= labels.items()
    other = {"deployment": "edge-chat", "namespace": "edge", "external_scaler": {"port": 9200}}
    assert _ports(_set(other)) == {"metrics-api": 9104, "external-push": 9200}
    assert _ports(_set({**other, "metrics_api": {"port": 9300}})) == {"metrics-api": 9300, "external-push": 9200}
    with pytest.raises(RefusedError, match="name the namespace of its autoscalers"):
        _set({"deployment": "edge-chat"})


def test_its_rights_are_those_of_its_page() -> None:
    release = rendered("keda")
    page = {one["kind"]: one for one in documents() if one.get("kind") in ("Role", "ClusterRoleBinding")}
    (role,) = (one for one in release.of("Role", "-auto"))
    assert role["metadata"]["namespace"] == "edge"
    assert role["rules"] == page["Role"]["rules"]
    bound = {one["metadata"]["namespace"]: one for one in release.of("RoleBinding", "-auto")}
    assert set(bound) == {"edge", "kube-system"}
    assert bound["kube-system"]["roleRef"]["name"] == "extension-apiserver-authentication-reader"
    (cluster,) = release.of("ClusterRoleBinding", "-auto")
    assert cluster["roleRef"] == page["ClusterRoleBinding"]["roleRef"]
    account = release.one("ServiceAccount", "-connector-auto")["metadata"]["name"]
    for binding in (*bound.values(), cluster):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]
    pod = next(template["spec"] for component, template in release.pods() if component == "connector-auto")
    assert pod["automountServiceAccountToken"]
    without = _set({"deployment": "edge-chat", "namespace": "edge"})
    assert [one["metadata"]["namespace"] for one in without.of("RoleBinding", "-auto")] == ["edge"]
    assert not without.of("ClusterRoleBinding", "-auto")


def test_the_pages_manifests_are_taken_by_kubernetes_and_have_kedas_shape() -> None:
    found = [one for one in documents() if "kind" in one]
    kedas = [one for one in found if one["apiVersion"].startswith("keda.sh/")]
    assert {one["kind"] for one in kedas} == {"ScaledObject", "TriggerAuthentication"}
    for one in kedas:
        jsonschema.validate(one, json.loads((KINDS / f"{one['kind']}.json").read_text()))
    ours = [("page", one) for one in found if one not in kedas]
    assert {one["kind"] for _, one in ours} >= {"HorizontalPodAutoscaler", "APIService", "Service"}
    assert problems_of(ours, WITH_TOLERANCE) == ""
