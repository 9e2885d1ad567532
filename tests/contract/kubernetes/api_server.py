"""An API server for a test, the double or a real one, and what tests create there through the API alone.

The real one is a kube-apiserver that WATTSCALE_TEST_APISERVER names and the tests start, or that of KUBECONFIG, where
WATTSCALE_TEST_CLUSTER names a namespace that the tests may write into. It needs no controllers and no nodes.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from agent.adapters.kubernetes.access import Access, find_access, from_kubeconfig
from agent.adapters.kubernetes.api import ApiError, KubernetesApi
from tests.doubles.kubernetes import KubernetesDouble
from tests.tools.kube_apiserver import VARIABLE, kube_apiserver

CORE = "/api/v1"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
TODAYS = (99, 0)
"""The double keeps the promises of every version that the chart takes."""
FIRST_WITH_OWNED_SCALES = (1, 22)
"""``managedFields`` name who wrote a count through ``/scale``."""
Rule = tuple[str, str, str]
"""(group, resources with commas, verbs with commas)"""


async def merge(api: KubernetesApi, path: str, body: dict[str, Any], manager: str = "") -> dict[str, Any]:
    """Merge-patch: only the keys given change."""
    query = {"fieldManager": manager} if manager else None
    return await api.send("PATCH", path, query=query, body=body, content_type="application/merge-patch+json")


class ApiServer:
    """One server with one namespace. ``mark`` tells this test's objects from those of all others; ``version`` is
    (major, minor) of Kubernetes."""

    def __init__(self, api: KubernetesApi, namespace: str, version: tuple[int, int] = TODAYS) -> None:
        self.api, self.namespace, self.version = api, namespace, version
        self.mark = f"t{uuid.uuid4().hex[:8]}"
        self._made: list[str] = []

    def path(self, group: str, version: str, resource: str, name: str = "", sub: str = "") -> str:
        """The path of a namespaced resource."""
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        return "/".join(part for part in (f"{root}/namespaces/{self.namespace}/{resource}", name, sub) if part)

    def skip_before(self, first: tuple[int, int], what: str) -> None:
        """Skip this test on a server that is older than the first one with ``what``."""
        if self.version < first:
            pytest.skip(f"this API server, {_dotted(self.version)}, is older than {what} ({_dotted(first)})")

    async def make(self, path: str, body: dict[str, Any], *, manager: str = "") -> dict[str, Any]:
        """Create an object, to be deleted after the test."""
        query = {"fieldManager": manager} if manager else None
        made = await self.api.send("POST", path, query=query, body=body)
        self._made.append(f"{path}/{made['metadata']['name']}")
        return made

    async def install(self, path: str, body: dict[str, Any]) -> None:
        """Create an object of the whole cluster; left alone where the server has it already, to stay.

        One that an earlier test deleted goes when its last objects are gone, and is made anew then.
        """
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.make(path, body)
                except ApiError as error:
                    if error.status != 409:
                        raise
                    if await self._stays(f"{path}/{body['metadata']['name']}"):
                        return
                    await asyncio.sleep(0.05)
                else:
                    return

    async def _stays(self, path: str) -> bool:
        try:
            return "deletionTimestamp" not in (await self.api.get(path))["metadata"]
        except ApiError as error:
            if error.status != 404:
                raise
            return False

    async def define(self, group: str, plural: str, kind: str, *versions: str, scale: bool = True) -> None:
        """A custom resource with ``/status`` and, if asked, ``/scale``; left alone where the server has it already."""
        subresources: dict[str, Any] = {"status": {}}
        if scale:
            subresources["scale"] = {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            }
        whole: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        if scale:
            numbers: dict[str, Any] = {
                "type": "object",
                "properties": {"replicas": {"type": "integer", "format": "int32"}},
            }
            numbers["x-kubernetes-preserve-unknown-fields"] = True
            whole["properties"] = {"spec": numbers}
        body = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
                "versions": [
                    {
                        "name": version,
                        "served": True,
                        "storage": index == 0,
                        "schema": {"openAPIV3Schema": whole},
                        "subresources": subresources,
                    }
                    for index, version in enumerate(versions)
                ],
            },
        }
        await self.install(DEFINITIONS, body)
        for version in versions:
            await self.served(self.path(group, version, plural))

    async def served(self, path: str) -> None:
        """Wait until a path is served: a definition takes a moment on a real server."""
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.api.get(path)
                except ApiError as error:
                    if error.status not in (404, 429, 503):
                        raise
                    await asyncio.sleep(0.05)
                else:
                    return

    async def account(self, name: str, *rules: Rule) -> str:
        """A service account with these rights in the namespace; its token."""
        full = f"{self.mark}-{name}"
        meta = {"name": full}
        await self.make(self.path("", "v1", "serviceaccounts"), {"metadata": meta})
        given = [
            {"apiGroups": [group], "resources": resources.split(","), "verbs": verbs.split(",")}
            for group, resources, verbs in rules
        ]
        home = f"{RBAC}/namespaces/{self.namespace}"
        await self.make(f"{home}/roles", {"metadata": meta, "rules": given})
        subject = {"kind": "ServiceAccount", "name": full, "namespace": self.namespace}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": full}
        await self.make(f"{home}/rolebindings", {"metadata": meta, "subjects": [subject], "roleRef": reference})
        answer = await self.api.post(self.path("", "v1", "serviceaccounts", full, "token"), {"spec": {}})
        token: str = answer["status"]["token"]
        return token

    @asynccontextmanager
    async def as_account(self, token: str) -> AsyncIterator[KubernetesApi]:
        """The same server with an account's token instead of the administrator's credentials."""
        tls = None
        if self.api.access.tls is not None:
            # Not the administrator's context: a client certificate in it counts before any token.
            tls = ssl.create_default_context()
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        access = replace(self.api.access, token=token, token_file=None, tls=tls)
        async with KubernetesApi(access) as api:
            yield api

    async def allow_pods(self) -> None:
        """The account that each pod needs; its controller makes it where there is one."""
        try:
            await self.api.post(self.path("", "v1", "serviceaccounts"), {"metadata": {"name": "default"}})
        except ApiError as error:
            if error.status != 409:
                raise

    async def clear(self) -> None:
        """Delete what the test made, the newest first."""
        for path in reversed(self._made):
            try:
                await self.api.send("DELETE", path, query={"gracePeriodSeconds": "0"})
            except ApiError as error:
                if error.status != 404:
                    raise


@asynccontextmanager
async def api_server(kind: str) -> AsyncIterator[ApiServer]:
    """``double``, or ``real`` where one is named; skips otherwise."""
    if kind == "double":
        async with KubernetesDouble() as kube, KubernetesApi(Access(kube.url)) as api:
            yield ApiServer(api, "ns")
        return
    async with KubernetesApi(real_access()) as api:
        named = await api.get("/version")
        version = (int(named["major"]), int(named["minor"].rstrip("+")))
        found = ApiServer(api, os.environ.get("WATTSCALE_TEST_CLUSTER", ""), version)
        if not found.namespace:
            found.namespace = f"{found.mark}-tests"
            await api.post("/api/v1/namespaces", {"metadata": {"name": found.namespace}})
        try:
            yield found
        finally:
            await found.clear()


def real_access() -> Access:
    """The administrator's, of the cluster or of the server that is named. Skips where none is."""
    if os.environ.get("WATTSCALE_TEST_CLUSTER"):
        return find_access()
    own = kube_apiserver()
    if own is None:
        pytest.skip(
            f"no real API server: set {VARIABLE} to a kube-apiserver, "
            "or KUBECONFIG, and WATTSCALE_TEST_CLUSTER to a namespace for tests"
        )
    return from_kubeconfig(own.administrator)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
