"""What `deploy/kubernetes/try` puts into its cluster fits together: values, names, labels, commands, security."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
from deploy.cli.main import build_parser
from deploy.compose import agent_settings, planner_settings
from deploy.compose.connectors import connector_settings
from deploy.compose.core_config import planner_config
from deploy.kubernetes.evaluation import VALUES
from deploy.kubernetes.in_cluster import (
    CUT_WATTS,
    GRAPH,
    NAMESPACE,
    PINNED,
    POOL,
    SITE,
    chat_graph,
    namespace,
    token_secret,
    verifier,
)
from deploy.kubernetes.own_cluster import GPU_NODE
from tests.integration.chart.pod_security import breaches
from tests.integration.chart.rendered import VERSIONS, Rendered, run_helm
from tests.integration.chart.test_manifests import problems_of
from tests.integration.evaluation.evaluation_release import evaluation_release
from tests.integration.evaluation.recorded_programs import RecordedPrograms, recorded_programs

pytestmark = pytest.mark.xdist_group("chart")
IMAGE = "wattscale/planner:try-0"
KUBERNETES = "1.34"


@pytest.fixture(scope="module")
def release() -> Rendered:
    return evaluation_release()


def test_the_settings_are_ones_that_our_programs_take(release: Rendered, tmp_path: Path) -> None:
    for name in ("planner", "agent", "connector-chat"):
        (tmp_path / name).write_text(release.settings(f"-{name}"))
    planner = planner_settings.load(tmp_path / "planner", {}).settings
    (site,) = planner_config(planner).sites.values()
    agent = agent_settings.load(tmp_path / "agent", {"WATTSCALE_AGENT_NODE": "one"}, {}).settings
    connector = connector_settings.load(tmp_path / "connector-chat", {}, {}, KubernetesFile).settings
    assert agent.driver == "simulated"
    assert site.expected_gpus == agent.simulated.gpus
    assert planner.sites[SITE].budget_watts >= agent.simulated.gpus * agent.simulated.min_watts
    assert planner.sites[SITE].budget_watts > CUT_WATTS >= agent.simulated.gpus * agent.simulated.min_watts
    assert planner.deployments[GRAPH].pools[POOL].max_replicas >= PINNED
    assert planner.sites[SITE].budget_watts < agent.simulated.gpus * agent.simulated.max_watts, "nothing is to be saved"
    (watched,) = connector.watched()
    assert (watched.deployment, watched.namespace) == (GRAPH, NAMESPACE)
    assert {pool: one.name for pool, one in watched.targets.items()} == dict.fromkeys(
        planner.deployments[GRAPH].pools, GRAPH
    )


def test_prometheus_finds_the_engine_with_the_labels_that_the_planner_reads(release: Rendered, tmp_path: Path) -> None:
    pod = chat_graph(IMAGE)[0]["spec"]["template"]
    monitor = release.one("PodMonitor", "-dynamo-worker")["spec"]
    labels = pod["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert NAMESPACE in monitor["namespaceSelector"]["matchNames"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    (tmp_path / "planner").write_text(release.settings("-planner"))
    settings = planner_settings.load(tmp_path / "planner", {}).settings
    assert labels["nvidia.com/dynamo-namespace"] == GRAPH
    assert [labels["nvidia.com/dynamo-component"]] == [
        one.component for one in settings.deployments[GRAPH].pools.values()
    ]
    stack = yaml.safe_load((VALUES / "prometheus.yaml").read_text())["prometheus"]["prometheusSpec"]
    assert stack["podMonitorSelectorNilUsesHelmValues"] is False
    assert "prometheus-operated.monitoring:9090" in str(settings.prometheus)


def test_the_verifier_reads_what_the_chart_writes_and_the_bus_admits_it(release: Rendered) -> None:
    pod = verifier(IMAGE)[-1]["spec"]["template"]
    (volume,) = pod["spec"]["volumes"]
    (settings,) = [one for one in release.of("ConfigMap") if one["metadata"]["name"] == volume["configMap"]["name"]]
    arguments = build_parser().parse_args(pod["spec"]["containers"][0]["args"])
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert f"{mount['mountPath']}/{next(iter(settings['data']))}" == str(arguments.config)
    (clients, _) = release.one("NetworkPolicy", "-nats")["spec"]["ingress"]
    assert clients["from"][0]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    workloads = [one["spec"]["selector"]["matchLabels"] for one in release.manifests if one["kind"] == "Deployment"]
    assert not any(labels.items() <= pod["metadata"]["labels"].items() for labels in workloads)


def test_commands_in_pods_exist_and_name_what_is_there(
    release: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = _calls_of_a_clean_test(recorded_programs(tmp_path, monkeypatch), monkeypatch)
    ways_in = [line.strip() for line in capfd.readouterr().out.splitlines() if " -- wattscale " in line]
    executed = [call.split(" -- ") for call in [*calls, *ways_in] if " exec deployment/" in call]
    assert len(executed) == 7
    there = {one["metadata"]["name"] for one in (*release.manifests, *chat_graph(IMAGE))}
    for where, command in executed:
        assert where.split("deployment/")[1] in there
        words = shlex.split(command)
        assert words[0] == "wattscale"
        build_parser().parse_args(words[1:])
        if "--nats-url" in words:
            assert (
                words[words.index("--nats-url") + 1]
                == f"nats://{release.one('Service', '-nats')['metadata']['name']}:4222"
            )
    for one in (chat_graph(IMAGE)[0], verifier(IMAGE)[-1]):
        build_parser().parse_args(one["spec"]["template"]["spec"]["containers"][0]["args"])


def _calls_of_a_clean_test(programs: RecordedPrograms, environment: pytest.MonkeyPatch) -> list[str]:
    from deploy.kubernetes import try_run

    environment.setattr(try_run, "ROOT", programs.checkout)
    assert try_run.main(["--clean-test"]) == 0
    return programs.calls()


def test_agents_run_on_the_labelled_nodes(release: Rendered) -> None:
    wanted = release.one("DaemonSet")["spec"]["template"]["spec"]["nodeSelector"]
    assert wanted == dict([GPU_NODE.split("=")])


def test_kubernetes_takes_every_object_and_pods_are_restricted() -> None:
    made = [namespace(), token_secret("of a test"), *chat_graph(IMAGE), *verifier(IMAGE)]
    assert problems_of([("try", one) for one in made], (KUBERNETES,)) == ""
    for one in made:
        if one["kind"] in ("Deployment", "Job"):
            assert breaches(one["spec"]["template"]["spec"]) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_helm_knows_every_flag(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _calls_of_a_clean_test(recorded_programs(tmp_path, monkeypatch), monkeypatch)
    monkeypatch.undo()
    known = run_helm(version, "upgrade", "--help")
    for call in calls:
        if call.startswith("helm upgrade"):
            assert [word for word in call.split() if word.startswith("--") and f"{word} " not in known] == []
