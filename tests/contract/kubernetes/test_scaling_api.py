"""What a connector relies on, on the double and on a real API server: scale, conflicts, field owners, rights, pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.adapters.kubernetes.api import ApiError, KubernetesApi
from agent.core.scaling.kubernetes.scale_targets import ScaleTarget
from tests.contract.kubernetes.api_server import DEFINITIONS, FIRST_WITH_OWNED_SCALES, ApiServer, api_server, merge
from tests.kubeconfig_file import kubeconfig

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
KINDS = ["deployments", "statefulsets", "custom"]


@pytest.fixture(params=["double", "real"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[ApiServer]:
    async with api_server(request.param) as found:
        yield found


class ScaledThing:
    """An object with ``/scale``: built in, or of a group of this test's own with two versions."""

    def __init__(self, server: ApiServer, kind: str) -> None:
        self.server, self.kind = server, kind
        self.group = f"{server.mark}.wattscale.test" if kind == "custom" else "apps"
        self.resource = "workers" if kind == "custom" else kind

    def at(self, sub: str = "", version: str = "v1") -> str:
        return self.server.path(self.group, version, self.resource, f"{self.server.mark}-w", sub)

    async def make(self) -> dict[str, Any]:
        if self.kind == "custom":
            await self.server.define(self.group, "workers", "Worker", "v1", "v2")
        labels = {"app": self.server.mark}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        kind = {"deployments": "Deployment", "statefulsets": "StatefulSet", "custom": "Worker"}[self.kind]
        body = {
            "apiVersion": f"{self.group}/v1",
            "kind": kind,
            "metadata": {"name": f"{self.server.mark}-w"},
            "spec": spec,
        }
        return await self.server.make(self.server.path(self.group, "v1", self.resource), body)


@pytest.mark.parametrize("kind", KINDS)
async def test_scale_changes_the_wanted_count_and_shows_the_status(server: ApiServer, kind: str) -> None:
    workers = ScaledThing(server, kind)
    await workers.make()
    scale = await merge(server.api, workers.at("scale"), {"spec": {"replicas": 3}})
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 3)
    found = await server.api.get(workers.at())
    assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (3, 2)
    assert found["metadata"]["resourceVersion"] == scale["metadata"]["resourceVersion"]
    selector = f"app={server.mark}"
    status: dict[str, Any] = {"replicas": 2} | ({"selector": selector} if kind == "custom" else {})
    await merge(server.api, workers.at("status"), {"status": status, "spec": {"replicas": 9}})
    scale = await server.api.get(workers.at("scale"))
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (3, 2)
    assert scale["status"]["selector"] == selector


@pytest.mark.parametrize("kind", ["deployments", "statefulsets"])
async def test_a_count_of_zero_is_left_out_of_a_status(server: ApiServer, kind: str) -> None:
    workers = ScaledThing(server, kind)
    await workers.make()
    status = {"replicas": 2, "readyReplicas": 0, "updatedReplicas": 0, "observedGeneration": 1}
    await merge(server.api, workers.at("status"), {"status": status})
    found = (await server.api.get(workers.at()))["status"]
    assert (found["replicas"], found["observedGeneration"]) == (2, 1)
    assert not {"readyReplicas", "updatedReplicas"} & found.keys()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_scale_to_zero_is_answered_without_the_count(server: ApiServer, kind: str) -> None:
    workers = ScaledThing(server, kind)
    await workers.make()
    scale = await merge(server.api, workers.at("scale"), {"spec": {"replicas": 0}})
    assert (scale["spec"], scale["status"]["replicas"]) == ({}, 0)
    assert (await server.api.get(workers.at()))["spec"]["replicas"] == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_our_client_scales_to_zero_and_back(server: ApiServer, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")
    from agent.connectors.kubernetes.cluster_client import ClusterClient

    workers = ScaledThing(server, kind)
    version = (await workers.make())["metadata"]["resourceVersion"]
    target = ScaleTarget(workers.group, "v1", workers.resource, server.namespace, f"{server.mark}-w")
    token = await server.account("scaler", (workers.group, f"{workers.resource}/scale", "get,patch"))
    file = kubeconfig(tmp_path / "kubeconfig", server.api.access.server, token)
    async with await ClusterClient.open(file) as cluster:
        for wanted in (0, 3):
            replicas, version = await cluster.scale(target, wanted, version)
            assert replicas == wanted
            assert (await server.api.get(workers.at()))["metadata"]["resourceVersion"] == version


@pytest.mark.parametrize("kind", KINDS)
async def test_a_scale_on_an_old_version_is_a_conflict_and_changes_nothing(server: ApiServer, kind: str) -> None:
    workers = ScaledThing(server, kind)
    old = (await workers.make())["metadata"]["resourceVersion"]
    await merge(server.api, workers.at("scale"), {"metadata": {"resourceVersion": old}, "spec": {"replicas": 2}})
    with pytest.raises(ApiError) as caught:
        await merge(server.api, workers.at("scale"), {"metadata": {"resourceVersion": old}, "spec": {"replicas": 5}})
    assert caught.value.status == 409
    assert (await server.api.get(workers.at()))["spec"]["replicas"] == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_the_owner_of_the_count_is_who_changed_it_last(server: ApiServer, kind: str) -> None:
    server.skip_before(FIRST_WITH_OWNED_SCALES, "owners of what a scale writes")
    workers = ScaledThing(server, kind)
    await workers.make()
    await merge(server.api, workers.at("scale"), {"spec": {"replicas": 2}}, manager="wattscale")
    assert _owners(await server.api.get(workers.at())) == {("wattscale", "scale")}
    await merge(server.api, workers.at(), {"spec": {"replicas": 4}}, manager="kubectl-edit")
    assert _owners(await server.api.get(workers.at())) == {("kubectl-edit", "")}


def _owners(item: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (entry["manager"], entry.get("subresource", ""))
        for entry in item["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    }


async def test_a_write_that_changes_nothing_gives_no_new_version(server: ApiServer) -> None:
    workers = ScaledThing(server, "custom")
    before = (await workers.make())["metadata"]["resourceVersion"]
    scale = await merge(server.api, workers.at("scale"), {"spec": {"replicas": 1}})
    assert scale["metadata"]["resourceVersion"] == before


async def test_a_custom_resource_is_read_under_each_served_version(server: ApiServer) -> None:
    workers = ScaledThing(server, "custom")
    await workers.make()
    for version in ("v1", "v2"):
        found = await server.api.get(workers.at(version=version))
        assert (found["apiVersion"], found["kind"]) == (f"{workers.group}/{version}", "Worker")
    with pytest.raises(ApiError) as caught:
        await server.api.get(workers.at(version="v3"))
    assert caught.value.status == 404


async def test_what_is_not_defined_or_has_no_scale_is_404(server: ApiServer) -> None:
    group = f"{server.mark}.wattscale.test"
    await server.define(group, "plains", "Plain", "v1", scale=False)
    plain = server.path(group, "v1", "plains")
    await server.make(plain, {"apiVersion": f"{group}/v1", "kind": "Plain", "metadata": {"name": "p"}})
    for path in (f"{plain}/p/scale", server.path(group, "v1", "others"), server.path(f"x.{group}", "v1", "plains")):
        with pytest.raises(ApiError) as caught:
            await server.api.get(path)
        assert caught.value.status == 404


async def test_objects_go_with_their_definition(server: ApiServer) -> None:
    workers = ScaledThing(server, "custom")
    await workers.make()
    await server.api.send("DELETE", f"{DEFINITIONS}/workers.{workers.group}")
    async with asyncio.timeout(60):
        while await _status(server.api, workers.at()) != 404:
            await asyncio.sleep(0.05)


async def _status(api: KubernetesApi, path: str) -> int:
    try:
        await api.get(path)
    except ApiError as error:
        return error.status
    return 200


async def test_an_account_may_do_what_its_role_says_and_can_ask_for_it(server: ApiServer) -> None:
    workers = ScaledThing(server, "custom")
    await workers.make()
    token = await server.account("c", (workers.group, "workers", "get,list"), (workers.group, "workers/scale", "patch"))
    async with server.as_account(token) as api:
        assert (await api.get(workers.at()))["spec"]["replicas"] == 1
        await merge(api, workers.at("scale"), {"spec": {"replicas": 2}})
        for path in (workers.at("status"), workers.at()):
            with pytest.raises(ApiError) as caught:
                await merge(api, path, {"spec": {"replicas": 3}})
            assert caught.value.status == 403
        assert await _may(api, server, "list", workers.group, "workers")
        assert await _may(api, server, "patch", workers.group, "workers", "scale")
        assert not await _may(api, server, "patch", workers.group, "workers")
        assert not await _may(api, server, "watch", workers.group, "workers")
        assert not await _may(api, server, "list", "", "pods")


async def _may(api: KubernetesApi, server: ApiServer, verb: str, group: str, resource: str, sub: str = "") -> bool:
    about = {"namespace": server.namespace, "verb": verb, "group": group, "resource": resource, "subresource": sub}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": about},
    }
    return bool((await api.post(REVIEWS, body))["status"]["allowed"])


async def test_an_unknown_token_is_refused(server: ApiServer) -> None:
    async with server.as_account("invented") as api:
        with pytest.raises(ApiError) as caught:
            await api.get(server.path("", "v1", "pods"))
        assert caught.value.status == 401


async def test_a_pod_on_a_node_leaves_gracefully_and_one_without_goes_at_once(server: ApiServer) -> None:
    pods = server.path("", "v1", "pods")
    await server.allow_pods()
    for name, node in (("bound", "no-such-node"), ("free", "")):
        spec = {"containers": [{"name": "c", "image": "none"}], "automountServiceAccountToken": False}
        body = {"metadata": {"name": f"{server.mark}-{name}"}, "spec": spec | ({"nodeName": node} if node else {})}
        made = await server.make(pods, body)
        assert made["status"]["phase"] == "Pending"
        await server.api.send("DELETE", f"{pods}/{server.mark}-{name}")
    marked = await server.api.get(f"{pods}/{server.mark}-bound")
    assert marked["metadata"]["deletionTimestamp"]
    await server.api.send("DELETE", f"{pods}/{server.mark}-bound", query={"gracePeriodSeconds": "0"})
    for name in ("bound", "free"):
        with pytest.raises(ApiError) as caught:
            await server.api.get(f"{pods}/{server.mark}-{name}")
        assert caught.value.status == 404
