"""What the chart promises, over every case of values that it ships: rights, security, settings, names, monitoring."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from agent.connectors.autoscaler.autoscaler_file import AutoscalerFile
from agent.connectors.connector_file import ConnectorFile
from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
from deploy.compose import agent_settings, planner_settings
from deploy.compose.connectors import connector_settings
from deploy.compose.core_config import planner_config
from deploy.helm.chart_files import drifted
from tests.integration.chart.pod_security import breaches
from tests.integration.chart.rendered import (
    CASES,
    CHART,
    NAMESPACE,
    VERSIONS,
    Manifest,
    RefusedError,
    rendered,
    run_helm,
    values_of,
)
from tests.integration.chart.test_manifests import VERSIONS as KUBERNETES

pytestmark = pytest.mark.xdist_group("chart")
CONNECTORS: dict[str, type[BaseModel]] = {
    "autoscaler": AutoscalerFile,
    "kubernetes": KubernetesFile,
    "virtual": ConnectorFile,
}


def test_generated_files_are_as_the_code_makes_them() -> None:
    assert not drifted(), "run python -m deploy.helm.chart_files"


def test_versions_agree_with_the_product() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[2] / "pyproject.toml").read_text()
    assert f'\nversion = "{chart["version"]}"\n' in project
    assert chart["appVersion"] == chart["version"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_case_passes_lint_without_a_warning(version: str) -> None:
    for case in CASES:
        run_helm(version, "lint", "--strict", str(CHART), "--values", str(values_of(case)))


@pytest.mark.parametrize("case", CASES)
def test_both_versions_of_helm_render_the_same(case: str) -> None:
    old, new = (rendered(case, version).manifests for version in VERSIONS)
    assert sorted(map(json.dumps, old)) == sorted(map(json.dumps, new))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cluster_older_than_the_oldest_whose_schemas_take_the_chart_is_refused_in_one_line(version: str) -> None:
    """Profiling Jobs have sidecar containers, which 1.29 is the first to serve."""
    oldest = KUBERNETES[0]
    before = f"1.{int(oldest.split('.')[1]) - 1}"
    with pytest.raises(RefusedError) as refused:
        rendered("minimal", version, extra=(f"--kube-version=v{before}.15",))
    (line,) = [one for one in str(refused.value).splitlines() if "rror" in one]
    assert f"chart requires kubeVersion: >={oldest}.0-0 which is incompatible with Kubernetes v{before}.15" in line
    # Providers write their own words behind the number.
    for taken in (f"v{oldest}.0", f"v{oldest}.1-eks-a5df82a", f"v{oldest}.1-gke.1589017", f"v{oldest}.1+k3s1"):
        assert rendered("minimal", version, extra=(f"--kube-version={taken}",)).manifests


UNKNOWN = {
    "planer.replicas=2": "planer",
    "planner.replica=2": "replica",
    "planner.settings.intervall_s=3": "intervall_s",
    "planner.settings.sites.row-1.budget=3": "budget",
    "planner.settings.bus.prefix=mine": "bus",
    "agent.settings.dryrun=true": "dryrun",
    "agent.settings.node=one": "node",
    "nats.auth.users=none": "users",
    "images.planner.name=x": "name",
    "monitoring.workers.portt=x": "portt",
}
"""Names that no level has, among them sections that the chart writes itself, and the name that is refused."""


@pytest.mark.parametrize("version", VERSIONS)
def test_unknown_values_are_refused_by_name(version: str) -> None:
    with pytest.raises(RefusedError) as refused:
        rendered("keda", version, extra=tuple(f"--set={value}" for value in UNKNOWN))
    named = set(re.findall(r"roperty (\S+) is not allowed|'(\w+)'", str(refused.value)))
    assert set(UNKNOWN.values()) <= {one or other for one, other in named}
    with pytest.raises(RefusedError, match="connectors"):
        rendered("keda", version, extra=("--set=connectors.chat.settings.deploymentt=x",))


def test_the_schema_is_closed_at_every_level() -> None:
    def check(schema: Any, where: str) -> None:
        if isinstance(schema, list):
            for one in schema:
                check(one, where)
        if not isinstance(schema, dict):
            return
        if "properties" in schema and schema.get("type", "object") == "object":
            assert schema.get("additionalProperties") is False, where
        for key, value in schema.items():
            check(value, f"{where}/{key}")

    check(json.loads((CHART / "values.schema.json").read_text()), "")


@pytest.mark.parametrize("case", CASES)
def test_all_pods_but_the_agents_are_restricted(case: str) -> None:
    for component, template in rendered(case).pods():
        if component != "agent":
            assert breaches(template["spec"]) == [], component


def test_the_agent_has_what_it_needs_and_nothing_more() -> None:
    (pod,) = [template["spec"] for component, template in rendered("annotations").pods() if component == "agent"]
    (container,) = pod["containers"]
    assert pod["hostPID"]
    assert not pod.get("hostNetwork")
    assert not pod.get("hostIPC")
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["privileged"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert paths == {
        "proc": "/proc",
        "pod-resources": "/var/lib/kubelet/pod-resources",
        "state": "/var/lib/wattscale",
        "lock": "/run/wattscale",
    }
    assert mounts["proc"]["mountPath"] == "/host/proc"
    assert mounts["proc"]["readOnly"]
    assert mounts["pod-resources"]["readOnly"]
    daemon_set = rendered("annotations").one("DaemonSet")
    assert daemon_set["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]


@pytest.mark.parametrize("case", CASES)
def test_every_container_has_probes_limits_and_settings_that_roll_it(case: str) -> None:
    for _, template in rendered(case).pods():
        assert template["metadata"]["annotations"]["wattscale/settings"]
        for container in template["spec"]["containers"]:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                port = container[probe]["httpGet"]["port"]
                assert port in [one["name"] for one in container["ports"]]
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("case", CASES)
def test_our_own_models_take_the_settings(case: str, tmp_path: Path) -> None:
    release = rendered(case)
    names = {component for component, _ in release.pods()}
    if "planner" in names:
        file = tmp_path / "planner.yaml"
        file.write_text(_with_profiles(release.settings("-planner"), release.manifests, tmp_path))
        settings = planner_settings.load(file, environ=_environment(release.one("Deployment", "-planner"))).settings
        planner_config(settings)
        assert settings.health.host == "0.0.0.0"
        assert settings.lease.holder == "the-pod"
    if "agent" in names:
        file = tmp_path / "agent.yaml"
        file.write_text(release.settings("-agent"))
        found = agent_settings.load(file, _environment(release.one("DaemonSet")), {}).settings
        assert found.node == "node-1"
        assert (found.nats is None) == (case == "annotations")
    for name in [one for one in names if one.startswith("connector-")]:
        file = tmp_path / f"{name}.yaml"
        file.write_text(release.settings(name))
        (container,) = release.one("Deployment", name)["spec"]["template"]["spec"]["containers"]
        connector_settings.load(file, {}, {}, CONNECTORS[container["args"][1]])


def _environment(workload: Manifest) -> dict[str, str]:
    """The container's variables as a kubelet fills them in."""
    known = {"metadata.name": "the-pod", "spec.nodeName": "node-1"}
    made: dict[str, str] = {}
    for variable in workload["spec"]["template"]["spec"]["containers"][0]["env"]:
        value = variable.get("value") or known[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for name, known_value in made.items():
            value = value.replace(f"$({name})", known_value)
        made[variable["name"]] = value
    return made


def _with_profiles(settings: str, manifests: tuple[Manifest, ...], folder: Path) -> str:
    """The settings with the profile's folder where this test has its files."""
    for one in manifests:
        if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "planner-profile-data":
            for name, text in one["data"].items():
                (folder / name).write_text(text)
    return settings.replace("/workspace/profiling_results", str(folder))


def test_two_releases_share_nothing() -> None:
    one, other = (rendered("dynamo", release=name) for name in ("one", "two"))

    def keys(manifests: tuple[Manifest, ...]) -> set[tuple[str, str, str]]:
        return {(m["kind"], m["metadata"].get("namespace", NAMESPACE), m["metadata"]["name"]) for m in manifests}

    # Dynamo's name of the profile is the same for all who read it.
    assert keys(one.manifests) & keys(other.manifests) == {("ConfigMap", NAMESPACE, "planner-profile-data")}
    selectors = [m["spec"]["selector"]["matchLabels"] for m in one.of("Deployment")]
    for pod in [template for _, template in other.pods()]:
        labels = pod["metadata"]["labels"]
        assert all(any(labels.get(name) != value for name, value in selector.items()) for selector in selectors)


def test_without_the_prometheus_operator_nothing_of_its_kinds_is_made() -> None:
    assert not [m for m in rendered("minimal").manifests if m["apiVersion"].startswith("monitoring.coreos.com")]
    found = rendered("minimal", extra=("--api-versions", "monitoring.coreos.com/v1"))
    assert found.of("PodMonitor")
    assert found.of("PrometheusRule")


def test_dynamos_workers_get_the_labels_that_the_planner_reads() -> None:
    for end in ("-dynamo-worker", "-dynamo-frontend"):
        (endpoint,) = rendered("dynamo").one("PodMonitor", end)["spec"]["podMetricsEndpoints"]
        assert {one["targetLabel"]: one["sourceLabels"] for one in endpoint["relabelings"]} == {
            "dynamo_namespace": ["__meta_kubernetes_pod_label_nvidia_com_dynamo_namespace"],
            "dynamo_component": ["__meta_kubernetes_pod_label_nvidia_com_dynamo_component"],
        }


def test_the_rules_are_those_that_promtool_tests() -> None:
    alerts = yaml.safe_load((CHART.parents[1] / "observability" / "alerts.yaml").read_text())
    assert rendered("dynamo").one("PrometheusRule")["spec"] == alerts


def test_uninstall_says_what_happens_to_caps_and_keeps_the_bus() -> None:
    # Helm prints it after install and upgrade; lint above has parsed it.
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    assert "After `helm uninstall` every GPU keeps its limit" in notes
    assert yaml.safe_load(rendered("minimal").settings("-agent")).get("on_exit", "keep") == "keep"
    kept = rendered("minimal").one("StatefulSet")["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_every_dashboard_is_a_config_map_that_grafana_finds() -> None:
    found = [one for one in rendered("minimal").of("ConfigMap") if "-dashboard-" in one["metadata"]["name"]]
    files = {path.name: path.read_text() for path in (CHART.parents[1] / "observability" / "dashboards").iterdir()}
    assert {name: json.loads(text) for one in found for name, text in one["data"].items()} == {
        name: json.loads(text) for name, text in files.items()
    }
    assert all(one["metadata"]["labels"]["grafana_dashboard"] == "1" for one in found)
    assert not rendered("minimal", extra=("--set=monitoring.dashboards.enabled=false",)).of("ConfigMap", "-overview")
