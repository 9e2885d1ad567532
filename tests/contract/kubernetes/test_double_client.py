"""The Kubernetes double as the official client for asyncio sees it: an independent reader of the same promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.doubles.kubernetes import KubernetesDouble

client = pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")
watching = pytest.importorskip("kubernetes_asyncio.watch", reason="kubernetes-asyncio is a test part")

SCALER_GROUP = "nvidia.com"
SCALER = "dynamographdeploymentscalingadapters"


@asynccontextmanager
async def connected(double: KubernetesDouble) -> AsyncIterator[Any]:
    configuration = client.Configuration(host=double.url)
    async with client.ApiClient(configuration) as api:
        yield api


def pod(name: str, node: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "serving", "annotations": {}},
        "spec": {"nodeName": node, "containers": []},
    }


async def test_pods_of_one_node_are_listed_and_watched() -> None:
    async with KubernetesDouble() as double, connected(double) as api:
        core = client.CoreV1Api(api)
        await double.put("", "pods", pod("a", "node-0"))
        await double.put("", "pods", pod("b", "node-1"))
        mine = await core.list_pod_for_all_namespaces(field_selector="spec.nodeName=node-0")
        assert [item.metadata.name for item in mine.items] == ["a"]

        async def first_event() -> tuple[str, str]:
            async with watching.Watch() as watch:
                stream = watch.stream(
                    core.list_pod_for_all_namespaces,
                    field_selector="spec.nodeName=node-0",
                    resource_version=mine.metadata.resource_version,
                    timeout_seconds=40,
                )
                async for event in stream:
                    return event["type"], event["object"].metadata.name
            return "", ""

        seen = asyncio.create_task(first_event())
        await double.put("", "pods", pod("c", "node-0"))
        assert await asyncio.wait_for(seen, 40) == ("ADDED", "c")


async def test_a_merge_patch_of_an_annotation_and_a_conflict() -> None:
    async with KubernetesDouble() as double, connected(double) as api:
        core = client.CoreV1Api(api)
        stored = await double.put("", "pods", pod("a", "node-0"))
        body = {"metadata": {"annotations": {"dynamo.nvidia.com/gpu-power-limit": "400"}}}
        patched = await core.patch_namespaced_pod("a", "serving", body, _content_type="application/merge-patch+json")
        assert patched.metadata.annotations == {"dynamo.nvidia.com/gpu-power-limit": "400"}
        stale = {"metadata": {"resourceVersion": stored["metadata"]["resourceVersion"], "labels": {"x": "y"}}}
        with pytest.raises(client.ApiException) as refused:
            await core.patch_namespaced_pod("a", "serving", stale, _content_type="application/merge-patch+json")
        assert refused.value.status == 409


async def test_replicas_change_through_the_scale_subresource() -> None:
    async with KubernetesDouble() as double, connected(double) as api:
        custom = client.CustomObjectsApi(api)
        item = {"metadata": {"name": "chat-decode", "namespace": "serving"}, "spec": {"replicas": 1}}
        await double.put(SCALER_GROUP, SCALER, item)
        where = (SCALER_GROUP, "v1beta1", "serving", SCALER, "chat-decode")
        await custom.patch_namespaced_custom_object_scale(
            *where, {"spec": {"replicas": 3}}, _content_type="application/merge-patch+json"
        )
        scale = await custom.get_namespaced_custom_object_scale(*where)
        assert scale["spec"]["replicas"] == 3
        assert double.find(SCALER_GROUP, SCALER, "serving", "chat-decode")["spec"]["replicas"] == 3
