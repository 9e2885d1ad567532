"""A bus, an API server with the page's rights, and the autoscaler connector as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from agent.adapters.kubernetes.access import Access
from agent.adapters.kubernetes.api import KubernetesApi
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from tests.contract.bus import bench, scaling, until
from tests.contract.roles.certificates import Authority, Pair
from tests.doubles.kubernetes import KubernetesDouble
from tests.free_ports import free_port
from tests.kubeconfig_file import kubeconfig
from tests.unit.agent.connectors.test_autoscaler_manifests import documents

DEPLOYMENT, NAMESPACE = "prod-llama", "prod"
RBAC = "rbac.authorization.k8s.io"
PLURALS = {
    "Role": (RBAC, "roles"),
    "RoleBinding": (RBAC, "rolebindings"),
    "ClusterRoleBinding": (RBAC, "clusterrolebindings"),
    "ServiceAccount": ("", "serviceaccounts"),
}
HPA_USER = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
Answer = tuple[int, dict[str, Any]]


def built_in_roles() -> list[tuple[str, str, dict[str, Any]]]:
    """The roles that every cluster has already, as far as the connector and HPA need them."""
    reader = "extension-apiserver-authentication-reader"
    read = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["extension-apiserver-authentication"],
        "verbs": ["get", "list", "watch"],
    }
    review = {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]}
    metrics = {"apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}
    hpa = "system:controller:horizontal-pod-autoscaler"
    account = {"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"}
    binding = {"subjects": [account], "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": hpa}}
    return [
        (RBAC, "roles", {"metadata": {"name": reader, "namespace": "kube-system"}, "rules": [read]}),
        (RBAC, "clusterroles", {"metadata": {"name": "system:auth-delegator"}, "rules": [review]}),
        (RBAC, "clusterroles", {"metadata": {"name": hpa}, "rules": [metrics]}),
        (RBAC, "clusterrolebindings", {"metadata": {"name": hpa}, **binding}),
    ]


class AutoscalerSite:
    """One bus, perhaps a double of the API server, and the ports of one connector."""

    def __init__(self, bus: Bus, url: str, nats_pid: int, folder: Path) -> None:
        self.bus, self.url, self.nats_pid, self.folder = bus, url, nats_pid, folder
        self.http, self.keda, self.external = free_port(), free_port(), free_port()
        self.log = folder / "connector.log"
        self.subject = bus.subjects.decision_scaling(DEPLOYMENT)

    async def decide(self, number: int, decode: int) -> None:
        """A decision for prefill (1) and decode."""
        await publish(self.bus, self.subject, scaling(DEPLOYMENT, number, decode=decode), f"decision-{number}")

    @asynccontextmanager
    async def connector(
        self, settings: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """The process, ended by SIGTERM where it still runs."""
        whole = {
            "deployment": DEPLOYMENT,
            "namespace": NAMESPACE,
            "nats": {"servers": [self.url]},
            "http": {"host": "127.0.0.1", "port": self.http},
            **settings,
        }
        file = self.folder / "connector.yaml"
        file.write_text(json.dumps(whole))
        words = ("-m", "deploy.cli.main", "connector", "autoscaler", "--settings", str(file))
        with self.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *words, stderr=log, env={**os.environ, **(environment or {})}
            )
        try:
            yield process
            if process.returncode is None:
                process.terminate()
                assert await asyncio.wait_for(process.wait(), 60) == 0, self.log.read_text()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def page(self, path: str) -> tuple[int, str]:
        """The health pages; status 0 while nothing listens."""
        try:
            async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{self.http}{path}") as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def asked_by_keda(self, path: str, method: str = "GET") -> Answer:
        """The JSON for KEDA; status 0 while nothing listens."""
        url = f"http://127.0.0.1:{self.keda}{path}"
        try:
            async with aiohttp.ClientSession() as client, client.request(method, url) as answer:
                return answer.status, await answer.json()
        except aiohttp.ClientConnectionError:
            return 0, {}

    async def asked_by_hpa(self, path: str, server: Path, client: Pair | None, headers: Mapping[str, str]) -> Answer:
        """The external metrics API. Status 0: no TLS connection, or nothing listens."""
        tls = ssl.create_default_context(cafile=server)
        if client is not None:
            tls.load_cert_chain(client.cert, client.key)
        url = f"https://127.0.0.1:{self.external}{path}"
        try:
            async with aiohttp.ClientSession() as session, session.get(url, ssl=tls, headers=headers) as answer:
                return answer.status, await answer.json()
        except (aiohttp.ClientConnectionError, ssl.SSLError):
            return 0, {}

    async def printed(self, *words: str) -> dict[str, Any]:
        """The JSON of a command about this bus, whatever its verdict is."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main", *words, "--nats-url", self.url),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "KUBECONFIG": str(self.folder / "none"), "HOME": str(self.folder)},
        )
        out, _ = await asyncio.wait_for(process.communicate(), 120)
        found: dict[str, Any] = json.loads(out)
        return found

    async def ready(self) -> None:
        """Wait until the connector is ready."""

        async def answered() -> bool:
            return (await self.page("/readyz"))[0] == 200

        await until(answered, "the connector to be ready")


@asynccontextmanager
async def autoscaler_site(folder: Path) -> AsyncIterator[AutoscalerSite]:
    """A bus with its streams."""
    async with bench(folder / "bus") as (nats, bus):
        yield AutoscalerSite(bus, nats.url, nats.pid, folder)


class TrustedCluster:
    """The double with the page's manifests of rights, and the authorities of front proxy and serving certificate."""

    def __init__(self, double: KubernetesDouble, folder: Path) -> None:
        self.double, self.folder = double, folder
        self.front = Authority(folder / "front", "front")
        self.serving = Authority(folder / "serving", "serving")
        self.server = self.serving.issue("server")
        self.proxy = self.front.issue("front-proxy-client")

    async def trust(self, authority: Authority) -> None:
        """The API server's front proxy is this one's from now on."""
        data = {
            "requestheader-client-ca-file": authority.own.cert.read_text(),
            "requestheader-allowed-names": '["front-proxy-client"]',
            "requestheader-username-headers": '["X-Remote-User"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        }
        meta = {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
        await self.double.put("", "configmaps", {"metadata": meta, "data": data})

    async def kubeconfig(self) -> Path:
        """A file for the connector's account, which has the rights of the page's manifests alone."""
        for group, resource, item in built_in_roles():
            await self.double.put(group, resource, item)
        for item in documents():
            if item.get("kind") in PLURALS:
                await self.double.put(*PLURALS[item["kind"]], item)
        async with KubernetesApi(Access(self.double.url)) as api:
            path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/wattscale-autoscaler/token"
            token = (await api.post(path, {"spec": {}}))["status"]["token"]
        return kubeconfig(self.folder / "kubeconfig", self.double.url, token, NAMESPACE)
