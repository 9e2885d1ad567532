"""``deploy/kubernetes/examples``: Kubernetes takes them, they fit together, and our programs take what is in them."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from agent.connectors.autoscaler.autoscaler_file import AutoscalerFile
from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
from agent.connectors.kubernetes.shared_watches import SharedWatches
from agent.core.scaling.autoscaler.lost_steps import tolerance_of
from agent.core.scaling.kubernetes.rival_scalers import planner_in_the_way
from deploy.compose import planner_settings
from deploy.compose.connectors import connector_settings
from deploy.compose.core_config import planner_config
from planner.adapters.graph_model import model_of
from tests.command_line import run
from tests.contract.kubernetes.test_detected_model import account_file
from tests.integration.chart.rendered import Manifest, Rendered, rights, template
from tests.integration.chart.test_connector_rights import NO_CLUSTER
from tests.integration.chart.test_manifests import KINDS, problems_of
from tests.unit.planner.adapters.test_profiles import write as write_profile

pytestmark = pytest.mark.xdist_group("chart")
ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "deploy" / "kubernetes" / "examples"
OWN_KINDS = Path(__file__).parent / "kinds"
VALUES = sorted(path.name for path in EXAMPLES.glob("*-values.yaml"))
OBJECTS = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.yaml") if path.name not in VALUES)
PLANNED = [name for name in OBJECTS if name.endswith("disagg_planner.yaml")]
WITH_TOLERANCE = ("1.35", "1.36", "1.37")
CONNECTORS: dict[str, type[BaseModel]] = {"kubernetes": KubernetesFile, "autoscaler": AutoscalerFile}
GRAPH, ADAPTER = "DynamoGraphDeployment", "DynamoGraphDeploymentScalingAdapter"


def documents(name: str) -> list[Manifest]:
    return [one for one in yaml.safe_load_all((EXAMPLES / name).read_text()) if one]


def services(graph: Manifest) -> dict[str, dict[str, Any]]:
    return dict(graph["spec"]["services"])


def of_kind(kind: str) -> list[Manifest]:
    return [one for name in OBJECTS for one in documents(name) if one["kind"] == kind]


def test_there_is_an_example_for_each_engine() -> None:
    assert [Path(name).parent.name for name in PLANNED] == ["sglang", "trtllm", "vllm"]


def test_kubernetes_takes_its_own_kinds_and_schemas_the_others() -> None:
    schemas = {path.stem: json.loads(path.read_text()) for path in (*KINDS.glob("*.json"), *OWN_KINDS.glob("*.json"))}
    builtin = []
    for name in OBJECTS:
        for one in documents(name):
            group = one["apiVersion"].split("/")[0]
            if "." in group and not group.endswith(".k8s.io"):
                jsonschema.validate(one, schemas[one["kind"]])  # a kind without a schema fails here
            else:
                builtin.append((name, one))
    assert {one["kind"] for _, one in builtin} == {"Role", "RoleBinding", "HorizontalPodAutoscaler"}
    assert problems_of(builtin, WITH_TOLERANCE) == ""


def test_a_misspelt_graph_is_found() -> None:
    schema = json.loads((OWN_KINDS / f"{GRAPH}.json").read_text())
    (graph,) = documents(PLANNED[0])
    graph["spec"]["services"]["decode"]["scalingAdaptor"] = {"enabled": True}
    with pytest.raises(jsonschema.ValidationError, match="scalingAdaptor"):
        jsonschema.validate(graph, schema)


def test_each_autoscaler_aims_at_an_adapter_that_exists_and_no_two_at_one() -> None:
    adapters = {
        f"{graph['metadata']['name']}-{service.lower()}"
        for graph in of_kind(GRAPH)
        for service, one in services(graph).items()
        if one.get("scalingAdapter", {}).get("enabled")
    }
    aimed = Counter(
        one["spec"]["scaleTargetRef"]["name"]
        for one in (*of_kind("HorizontalPodAutoscaler"), *of_kind("ScaledObject"))
        if one["spec"]["scaleTargetRef"]["kind"] == ADAPTER
    )
    assert set(aimed) == {"chat-frontend", "chat-prefill", "chat-decode"}
    assert set(aimed) <= adapters
    assert set(aimed.values()) == {1}


@pytest.mark.parametrize("name", PLANNED)
def test_a_planner_that_is_part_of_a_graph_starts_and_scales_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (graph,) = documents(name)
    own, place = graph["metadata"]["name"], graph["metadata"]["namespace"]
    container = services(graph)["planner"]["extraPodSpec"]["mainContainer"]
    monkeypatch.setenv("KUBECONFIG", str(account_file(tmp_path, "http://127.0.0.1:9")))
    monkeypatch.setenv("DYN_PARENT_DGD_K8S_NAME", own)
    write_profile(tmp_path)
    words = [word.replace("/workspace/profiling_results", str(tmp_path)) for word in container["args"]]
    assert words[:2] == ["planner", "run"]
    assert f"--namespace={place}-{own}" in words
    assert f"--backend={graph['spec']['backendFramework']}" in words
    done = run("planner", "check", *words[2:])
    assert (done.code, done.err) == (0, ""), done
    assert f"{place}-{own}" in done.out
    assert model_of(graph).name == "Qwen/Qwen3-0.6B"
    assert planner_in_the_way(graph) == ""
    pools = {service for service, one in services(graph).items() if "scalingAdapter" in one}
    assert pools == {"prefill", "decode"}, "a pool has the name of its service"


def test_such_a_planner_has_every_right_that_it_asks_for() -> None:
    (role,) = of_kind("Role")
    place = role["metadata"]["namespace"]
    file = KubernetesFile(deployment="any", namespace=place, graph="any")
    asked = {
        (right.verb, right.group, right.path)
        for watch in SharedWatches(NO_CLUSTER, file.watched()).watches.values()
        for right in watch._rights
    }
    assert rights(role) == {*asked, ("get", "nvidia.com", "dynamographdeployments")}, "get: to find the model"


def released(name: str) -> Rendered:
    """As the command at the head of the file installs it."""
    (command,) = [line for line in (EXAMPLES / name).read_text().splitlines() if line.startswith("#   helm install ")]
    words = shlex.split(command.removeprefix("#"))
    assert words[-1] == f"deploy/kubernetes/examples/{name}"
    return template(*words[2:])


@pytest.mark.parametrize("name", VALUES)
def test_the_chart_and_our_programs_take_the_values(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    release = released(name)
    write_profile(tmp_path)
    for component in dict(release.pods()):
        if component == "planner":
            text = release.settings("-planner").replace("/workspace/profiling_results", str(tmp_path))
            (tmp_path / "planner.yaml").write_text(text)
            planner_config(planner_settings.load(tmp_path / "planner.yaml", {}).settings)
        if component.startswith("connector-"):
            (container,) = release.one("Deployment", component)["spec"]["template"]["spec"]["containers"]
            model = CONNECTORS[container["args"][1]]
            (tmp_path / component).write_text(release.settings(component))
            connector_settings.load(tmp_path / component, {}, {}, model)


def test_planners_in_graphs_reach_the_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    release = released("bus-values.yaml")
    assert "planner" not in dict(release.pods())
    service = release.one("Service", "-nats")["metadata"]["name"]
    clients = release.one("NetworkPolicy", "-nats")["spec"]["ingress"][0]["from"]
    graphs = [documents(name)[0] for name in PLANNED]
    assert {"kubernetes.io/metadata.name": graphs[0]["metadata"]["namespace"]} in [
        one.get("namespaceSelector", {}).get("matchLabels") for one in clients
    ]
    for graph in graphs:
        assert any(f"nats://{service}.power.svc:4222" in word for word in str(graph).split('"'))


def test_hpa_asks_for_the_count_that_the_planner_decides() -> None:
    (autoscaler,) = [one for one in of_kind("HorizontalPodAutoscaler") if one["metadata"]["name"] == "chat-decode"]
    values = yaml.safe_load((EXAMPLES / "mixed-values.yaml").read_text())
    served = values["connectors"]["auto"]["settings"]
    (metric,) = autoscaler["spec"]["metrics"]
    assert metric["external"]["metric"] == {
        "name": "wattscale-decode",
        "selector": {"matchLabels": {"deployment": served["deployment"]}},
    }
    assert autoscaler["metadata"]["namespace"] == served["namespace"]
    tolerance, unset = tolerance_of(autoscaler)
    assert (tolerance.up, tolerance.down, unset) == (0, 0, ())
    assert list(values["planner"]["settings"]["deployments"][served["deployment"]]["pools"]) == ["decode"]
