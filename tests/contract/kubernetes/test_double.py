"""What the Kubernetes double promises, as tests that a real API server passes too.

They run against the double always, and also against the cluster of KUBECONFIG when WATTSCALE_TEST_CLUSTER names a
namespace that they may write leases into.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent.adapters.kubernetes.api import ApiError, KubernetesApi
from tests.contract.kubernetes.api_server import api_server, merge


class Leases:
    """One namespace's leases: an object without a controller, so that nothing else writes to it."""

    def __init__(self, api: KubernetesApi, namespace: str) -> None:
        self.api, self.path = api, f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.mark = f"t{uuid.uuid4().hex[:8]}"

    def body(self, name: str, **labels: str) -> dict[str, Any]:
        metadata = {"name": f"{self.mark}-{name}", "labels": {"mark": self.mark, **labels}}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}

    def at(self, name: str) -> str:
        return f"{self.path}/{self.mark}-{name}"

    async def names(self, selector: str) -> set[str]:
        found = await self.api.get(self.path, {"labelSelector": selector})
        return {item["metadata"]["name"].removeprefix(f"{self.mark}-") for item in found["items"]}


@pytest.fixture(params=["double", "real"])
async def leases(request: pytest.FixtureRequest) -> AsyncIterator[Leases]:
    async with api_server(request.param) as server:
        found = Leases(server.api, server.namespace)
        yield found
        for name in await found.names(f"mark={found.mark}"):
            await server.api.send("DELETE", found.at(name))


async def test_what_is_created_has_a_uid_a_version_and_a_time_and_can_be_read(leases: Leases) -> None:
    made = await leases.api.post(leases.path, leases.body("a"))
    assert made["metadata"]["uid"]
    assert made["metadata"]["creationTimestamp"].endswith("Z")
    assert await leases.api.get(leases.at("a")) == made


async def test_a_name_that_is_taken_is_refused(leases: Leases) -> None:
    await leases.api.post(leases.path, leases.body("a"))
    with pytest.raises(ApiError) as caught:
        await leases.api.post(leases.path, leases.body("a"))
    assert caught.value.status == 409


async def test_what_is_not_there_is_404(leases: Leases) -> None:
    for work in (leases.api.get(leases.at("x")), merge(leases.api, leases.at("x"), {"spec": {}})):
        with pytest.raises(ApiError) as caught:
            await work
        assert caught.value.status == 404


async def test_a_write_on_an_old_version_is_a_conflict_and_changes_nothing(leases: Leases) -> None:
    old = (await leases.api.post(leases.path, leases.body("a")))["metadata"]["resourceVersion"]
    await merge(leases.api, leases.at("a"), {"spec": {"holderIdentity": "one"}})
    stale = {"metadata": {"resourceVersion": old}, "spec": {"holderIdentity": "two"}}
    with pytest.raises(ApiError) as caught:
        await merge(leases.api, leases.at("a"), stale)
    assert caught.value.status == 409
    assert (await leases.api.get(leases.at("a")))["spec"]["holderIdentity"] == "one"


async def test_a_merge_patch_changes_what_it_names_and_null_removes(leases: Leases) -> None:
    await leases.api.post(leases.path, leases.body("a", keep="1", drop="1"))
    after = await merge(leases.api, leases.at("a"), {"metadata": {"labels": {"drop": None, "new": "2"}}})
    labels = after["metadata"]["labels"]
    assert (labels["keep"], labels["new"], "drop" in labels) == ("1", "2", False)


async def test_what_has_finalizers_is_marked_and_goes_with_the_last_of_them(leases: Leases) -> None:
    held = leases.body("a")
    held["metadata"]["finalizers"] = ["tests.wattscale.io/a", "tests.wattscale.io/b"]
    await leases.api.post(leases.path, held)
    await leases.api.send("DELETE", leases.at("a"))
    marked = await merge(leases.api, leases.at("a"), {"metadata": {"finalizers": ["tests.wattscale.io/b"]}})
    assert marked["metadata"]["deletionTimestamp"]
    await merge(leases.api, leases.at("a"), {"metadata": {"finalizers": []}})
    assert await leases.names(f"mark={leases.mark}") == set()


async def test_a_patch_of_no_known_type_is_refused(leases: Leases) -> None:
    await leases.api.post(leases.path, leases.body("a"))
    with pytest.raises(ApiError) as caught:
        await leases.api.send("PATCH", leases.at("a"), body={"spec": {}}, content_type="application/json")
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("c=1", {"a", "b"}),
        ("c=1,d=1", {"a"}),
        ("c==1,d!=1", {"b"}),
        ("d", {"a", "c"}),
        ("c=1,!d", {"b"}),
        ("c=9", set()),
    ],
)
async def test_label_selectors(leases: Leases, selector: str, names: set[str]) -> None:
    for name, labels in {"a": {"c": "1", "d": "1"}, "b": {"c": "1"}, "c": {"d": "1"}}.items():
        await leases.api.post(leases.path, leases.body(name, **labels))
    assert await leases.names(f"mark={leases.mark},{selector}") == names


async def test_a_watch_reports_what_came_changed_and_went_from_its_version_on(leases: Leases) -> None:
    await leases.api.post(leases.path, leases.body("before"))
    query = {"labelSelector": f"mark={leases.mark}"}
    version = (await leases.api.get(leases.path, query))["metadata"]["resourceVersion"]
    await leases.api.post(leases.path, leases.body("a"))
    await merge(leases.api, leases.at("a"), {"spec": {"holderIdentity": "x"}})
    await merge(leases.api, leases.at("a"), {"metadata": {"labels": {"mark": "other"}}})
    await merge(leases.api, leases.at("a"), {"metadata": {"labels": {"mark": leases.mark}}})
    await leases.api.send("DELETE", leases.at("a"))
    kinds: list[str] = []
    versions: list[int] = []
    watching = {**query, "watch": "1", "resourceVersion": version, "timeoutSeconds": "10"}
    async with asyncio.timeout(60):
        async for event in leases.api.lines(leases.path, watching, silence_s=10.0):
            kinds.append(event["type"])
            versions.append(int(event["object"]["metadata"]["resourceVersion"]))
            if len(kinds) == 5:
                break
    assert kinds == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    assert versions == sorted(set(versions))


async def test_pages_of_a_list_hold_everything_once(leases: Leases) -> None:
    for number in range(5):
        await leases.api.post(leases.path, leases.body(f"n{number}"))
    seen: list[str] = []
    query = {"labelSelector": f"mark={leases.mark}", "limit": "2"}
    while True:
        page = await leases.api.get(leases.path, query)
        seen += [item["metadata"]["name"] for item in page["items"]]
        if not page["metadata"].get("continue"):
            break
        query["continue"] = page["metadata"]["continue"]
    assert sorted(seen) == [f"{leases.mark}-n{number}" for number in range(5)]
