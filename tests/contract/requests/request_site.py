"""A cluster with requests: the Kubernetes double, and what plays the nodes, the Job's pod and Dynamo's operator."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")

from agent.connectors.kubernetes.cluster_client import ClusterClient
from deploy.requests.cluster.request_actions import ClusterPlace, RequestActions
from deploy.requests.cluster.request_objects import OWN, RESOURCE, path
from deploy.requests.cluster.request_watch import RequestWatch
from deploy.requests.cluster.result_upload import read_results, upload
from planner.profiler.results.profile_files import decode_columns, prefill_columns, write_json
from tests.doubles.kubernetes import KubernetesDouble
from tests.kubeconfig_file import kubeconfig
from tests.unit.planner.profiler.requests.test_generated_deployments import profile

NAMESPACE = "chat"
NAME = "qwen"
DEFINITION = Path(__file__).parents[3] / "deploy/helm/wattscale/files/inferencepowerrequests.yaml"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GRAPHS = ("nvidia.com", "dynamographdeployments")
MAPS, JOBS, EVENTS = ("", "configmaps"), ("batch", "jobs"), ("", "events")
REQUESTS = ("wattscale.io", RESOURCE)
SPEC: dict[str, Any] = {
    "model": "Qwen/Qwen3-32B",
    "backend": "vllm",
    "workload": {"isl": 3000, "osl": 150, "requestRate": 4.0},
    "sla": {"ttft": 500.0, "itl": 40.0},
    "hardware": {"numGpusPerNode": 1},
    "searchStrategy": "thorough",
    "autoApply": False,
}
PLACE = ClusterPlace(
    image="wattscale/planner:1",
    offline_image="wattscale/offline:1",
    account="wattscale-profiler",
    quick=False,
    bus="nats://nats:4222",
    prometheus="http://prometheus:9090",
)


def account_file(folder: Path, url: str, token: str = "secret") -> Path:
    """A kubeconfig for an administrator of this server, or for whoever has this token."""
    name = "kubeconfig.json" if token == "secret" else f"kubeconfig-{token[-12:]}.json"
    return kubeconfig(folder / name, url, token)


class RequestSite:
    """One request in one cluster, and a controller that a test steps by hand."""

    def __init__(self, double: KubernetesDouble, cluster: ClusterClient, folder: Path) -> None:
        self.double, self.cluster, self.folder = double, cluster, folder
        self.later_s = 0.0
        self.watch = self.controller(cluster)

    def controller(self, cluster: ClusterClient) -> RequestWatch:
        """Another one, which knows nothing of the first."""
        return RequestWatch(cluster, NAMESPACE, RequestActions(cluster, PLACE), now=self._now)

    def _now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.later_s)

    # What users do.

    async def request(self, **spec: Any) -> None:
        """Create the request with keys of its spec set; None removes one."""
        await self.cluster.send(
            "POST",
            path(OWN, NAMESPACE, RESOURCE),
            {
                "apiVersion": "wattscale.io/v1alpha1",
                "kind": "InferencePowerRequest",
                "metadata": {"name": NAME},
                "spec": {key: value for key, value in {**SPEC, **spec}.items() if value is not None},
            },
        )

    async def change(self, **spec: Any) -> None:
        await self.cluster.send("PATCH", path(OWN, NAMESPACE, RESOURCE, NAME), {"spec": spec})

    async def delete(self) -> None:
        await self.cluster.send("DELETE", path(OWN, NAMESPACE, RESOURCE, NAME))

    async def step(self) -> None:
        """Let the controller go on as far as it can."""
        await self.watch.carry_out(NAME)

    # What nodes, Jobs and operators do.

    async def node(self, name: str, gpus: int, product: str = "NVIDIA-H200", *, ready: bool = True) -> None:
        labels = {"nvidia.com/gpu.product": product}
        status = {
            "allocatable": {"nvidia.com/gpu": str(gpus), "cpu": "64"},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        }
        await self.double.put("", "nodes", {"metadata": {"name": name, "labels": labels}, "status": status})

    async def ends(self, tp: int, *, prefill_tp: int | None = None) -> None:
        """The Job of a TP size profiles and uploads by the same code as its pod, and is complete."""
        name = f"profile-{NAME}-tp{tp}" if tp else f"profile-{NAME}"
        await upload(self.cluster, NAMESPACE, name, read_results(self.profile(prefill_tp or tp or 2)))
        await self._job_status(name, {"type": "Complete", "status": "True"})

    async def fails(self, tp: int, said: str) -> None:
        """Its profiler's container ends with 1, and these are the last words of its log."""
        name = f"profile-{NAME}-tp{tp}" if tp else f"profile-{NAME}"
        ended = {"terminated": {"exitCode": 1, "message": f"profiling...\nwattscale: {said}\n"}}
        pod = {
            "metadata": {"name": f"{name}-x", "namespace": NAMESPACE, "labels": {"job-name": name}},
            "status": {"phase": "Failed", "initContainerStatuses": [{"name": "profile", "state": ended}]},
        }
        await self.double.put("", "pods", pod)
        condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}
        await self._job_status(name, condition)

    async def _job_status(self, name: str, condition: dict[str, Any]) -> None:
        job = self.double.find(*JOBS, NAMESPACE, name)
        await self.double.put(*JOBS, {**job, "status": {"conditions": [condition]}})

    async def graph_is(self, state: str, message: str = "") -> None:
        """Dynamo's operator says so."""
        graph = self.double.find(*GRAPHS, NAMESPACE, NAME)
        status = {
            "state": state,
            "observedGeneration": graph["metadata"]["generation"],
            "conditions": [{"type": "Ready", "status": str(state == "successful"), "message": message}],
        }
        await self.double.put(*GRAPHS, {**graph, "status": status})

    def profile(self, tp: int) -> Path:
        """A folder as `wattscale profile` leaves it."""
        return profile_folder(self.folder, tp)

    # What is there.

    def status(self) -> dict[str, Any]:
        return dict(self.double.find(*REQUESTS, NAMESPACE, NAME).get("status") or {})

    def stage(self) -> str:
        return str(self.status().get("stage", ""))

    def reasons(self) -> list[str]:
        """Events of the request, in the order of their creation."""
        return [one["reason"] for one in self.events() if one["involvedObject"]["name"] == NAME]

    def events(self) -> list[dict[str, Any]]:
        found = self.double.objects(*EVENTS)
        return sorted(found, key=lambda one: int(one["metadata"]["resourceVersion"]))

    def names(self, kind: tuple[str, str]) -> list[str]:
        return sorted(one["metadata"]["name"] for one in self.double.objects(*kind))

    def map(self, name: str) -> dict[str, Any]:
        return self.double.find(*MAPS, NAMESPACE, name)


def profile_folder(parent: Path, tp: int) -> Path:
    """A folder as `wattscale profile` leaves it, made once."""
    folder = parent / f"tp{tp}"
    if not folder.exists():
        folder.mkdir()
        known = profile(tp, tp)
        assert known.prefill is not None
        assert known.decode is not None
        prefill = {key: value.tolist() for key, value in prefill_columns(known.prefill).items()}
        decode = {key: value.tolist() for key, value in decode_columns(known.decode).items()}
        write_json(folder / "prefill_raw_data.json", prefill)
        write_json(folder / "decode_raw_data.json", {**decode, "max_kv_tokens": known.decode.max_kv_tokens})
        write_json(folder / "meta.json", {"prefill_tp": tp, "decode_tp": tp})
    return folder


@asynccontextmanager
async def request_site(folder: Path, *, dynamo: bool = True, gpus: int = 8) -> AsyncIterator[RequestSite]:
    """A cluster with our definition from the chart, one node with GPUs, and Dynamo's graphs or none."""
    async with KubernetesDouble() as double, await ClusterClient.open(account_file(folder, double.url)) as cluster:
        await cluster.send("POST", DEFINITIONS, yaml.safe_load(DEFINITION.read_text()))
        if dynamo:
            await cluster.send("POST", DEFINITIONS, graph_definition())
        site = RequestSite(double, cluster, folder)
        if gpus:
            await site.node("n1", gpus)
        yield site


def graph_definition() -> dict[str, Any]:
    """Dynamo's kind, as far as it is used here."""
    ours = copy.deepcopy(yaml.safe_load(DEFINITION.read_text()))
    kind, plural = "DynamoGraphDeployment", "dynamographdeployments"
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    ours["metadata"] = {"name": f"{plural}.nvidia.com"}
    ours["spec"] |= {"group": "nvidia.com", "names": names}
    ours["spec"]["versions"][0] |= {"name": "v1beta1", "additionalPrinterColumns": []}
    return dict(ours)
