"""What `wattscale verify` reads from an API server, of any size."""

from __future__ import annotations

from pathlib import Path

from agent.adapters.kubernetes.pages import PAGE
from deploy.cli.verify import gather_cluster
from deploy.cli.verify.facts import AnnotatedPod, ClusterFacts
from tests.doubles.kubernetes import KubernetesDouble
from tests.integration.agent.test_list_watch import pod
from tests.kubeconfig_file import kubeconfig

KEY = "dynamo.nvidia.com/gpu-power-limit"


async def test_nodes_and_pods_of_a_large_cluster_are_read_page_by_page(tmp_path: Path) -> None:
    many = 2 * PAGE + 1
    async with KubernetesDouble() as kube:
        for number in range(many):
            name = f"n{number:04}"
            status = {"allocatable": {"nvidia.com/gpu": str(number % 2)}}
            await kube.put("", "nodes", {"metadata": {"name": name}, "status": status})
            await kube.put("", "pods", pod(f"p{number}", name))
        await kube.put("", "pods", pod("limited", annotations={KEY: "400"}))
        await kube.put("", "pods", pod("wrong", annotations={KEY: "lots"}))
        facts = await gather_cluster.cluster_facts(kubeconfig(tmp_path / "kubeconfig", kube.url, "secret"))
        asked = [path for _, path in kube.requests]
    assert isinstance(facts, ClusterFacts)
    assert facts.gpu_nodes == tuple(f"n{number:04}" for number in range(1, many, 2))
    assert isinstance(facts.pods, tuple)
    assert AnnotatedPod("ns/limited", 400) in facts.pods
    assert [one.pod for one in facts.pods] == ["ns/limited", "ns/wrong"]
    assert all(f"limit={PAGE}" in path for path in asked)
    assert len(asked) == 6
