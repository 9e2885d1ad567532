"""The list-watch loop against the Kubernetes double: everything that goes wrong with watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.adapters.kubernetes.access import Access
from agent.adapters.kubernetes.api import ApiError, KubernetesApi
from agent.adapters.kubernetes.list_watch import ListWatch, WatchTiming
from agent.adapters.kubernetes.pods import pods_of_node
from agent.core.ownership import Pod
from tests.contract.bus import until
from tests.doubles.kubernetes import KubernetesDouble

FAST = WatchTiming(watch_s=60, silence_s=5.0, first_pause_s=0.02, longest_pause_s=0.2)


def pod(name: str, node: str = "n1", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}"} | more
    return {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": "Running"}}


@asynccontextmanager
async def watching(
    kube: KubernetesDouble, timing: WatchTiming = FAST, token: str = ""
) -> AsyncIterator[ListWatch[Pod]]:
    async with KubernetesApi(Access(kube.url, token=token), timeout_s=5.0) as api:
        watch = pods_of_node(api, "n1", timing=timing)
        task = asyncio.create_task(watch.run())
        try:
            yield watch
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def names(watch: ListWatch[Pod]) -> set[str] | None:
    return None if watch.items is None else {found.ref.name for found in watch.items.values()}


async def test_pods_come_change_and_go() -> None:
    async with KubernetesDouble() as kube:
        await kube.put("", "pods", pod("a"))
        await kube.put("", "pods", pod("elsewhere", node="n2"))
        async with watching(kube) as watch:
            await until(lambda: names(watch) == {"a"}, "the list")
            await kube.put("", "pods", pod("b", annotations={"dynamo.nvidia.com/gpu-power-limit": "400", "x": "y"}))
            await until(lambda: names(watch) == {"a", "b"}, "the new pod")
            assert watch.items is not None
            assert watch.items["uid-b"].annotations == {"dynamo.nvidia.com/gpu-power-limit": "400"}
            await kube.put("", "pods", pod("b", deletionTimestamp="2026-01-01T00:00:00Z"))
            await until(lambda: watch.items is not None and watch.items["uid-b"].terminating, "the deletion to begin")
            await kube.remove("", "pods", "ns", "b")
            await until(lambda: names(watch) == {"a"}, "the pod to go")


async def test_until_the_first_list_nothing_is_known_which_is_not_empty() -> None:
    async with KubernetesDouble() as kube:
        kube.fail(500, 503, 429)
        async with watching(kube) as watch:
            assert names(watch) is None
            await until(lambda: watch.failures >= 3, "three failures")
            await until(lambda: names(watch) == set(), "an empty list that was really read")


async def test_a_watch_that_is_cut_goes_on_where_it_was() -> None:
    async with KubernetesDouble() as kube:
        await kube.put("", "pods", pod("a"))
        async with watching(kube) as watch:
            await until(lambda: names(watch) == {"a"}, "the list")
            for number in range(5):
                kube.drop_watches()
                await kube.put("", "pods", pod(f"p{number}"))
            await until(lambda: names(watch) == {"a", *(f"p{number}" for number in range(5))}, "all pods")
            lists = [path for _, path in kube.requests if "watch=1" not in path]
            assert len(lists) == 1


async def test_a_version_that_is_too_old_means_a_new_list() -> None:
    async with KubernetesDouble() as kube:
        await kube.put("", "pods", pod("a"))
        async with watching(kube) as watch:
            await until(lambda: names(watch) == {"a"}, "the list")
            kube.fail(500, 500)
            kube.drop_watches()
            await kube.put("", "pods", pod("b"))
            await kube.remove("", "pods", "ns", "a")
            kube.compact()
            await until(lambda: names(watch) == {"b"}, "what is there after 410")


async def test_bookmarks_move_the_version_on_so_that_a_quiet_watch_does_not_grow_too_old() -> None:
    async with KubernetesDouble(bookmark_s=0.05) as kube, watching(kube) as watch:
        await until(lambda: names(watch) == set(), "the list")
        for number in range(10):
            await kube.put("", "pods", pod(f"other{number}", node="n2"))
        revision = str(kube.revision)
        await until(lambda: watch._version == revision, "a bookmark")
        kube.compact()
        kube.drop_watches()
        await kube.put("", "pods", pod("a"))
        await until(lambda: names(watch) == {"a"}, "the pod")
        assert sum("watch=1" not in path for _, path in kube.requests) == 1


async def test_a_watch_that_falls_silent_is_begun_again() -> None:
    timing = WatchTiming(watch_s=60, silence_s=0.3, first_pause_s=0.02, longest_pause_s=0.1)
    async with KubernetesDouble() as kube, watching(kube, timing) as watch:
        await until(lambda: names(watch) == set(), "the list")
        kube.silent = True
        await kube.put("", "pods", pod("a"))
        await until(lambda: watch.failures >= 1, "the silence to be noticed")
        kube.silent = False
        await until(lambda: names(watch) == {"a"}, "the pod")


async def test_a_store_that_was_restored_from_a_copy_means_a_new_list() -> None:
    timing = WatchTiming(watch_s=60, silence_s=0.3, first_pause_s=0.02, longest_pause_s=0.1)
    async with KubernetesDouble(bookmark_s=0.05) as kube:
        await kube.put("", "pods", pod("a"))
        async with watching(kube, timing) as watch:
            await until(lambda: names(watch) == {"a"}, "the list")
            kube.go_back(500)
            kube.drop_watches()
            await kube.put("", "pods", pod("b"))
            await until(lambda: names(watch) == {"a", "b"}, "what is there after the restore")
            await kube.remove("", "pods", "ns", "a")
            await until(lambda: names(watch) == {"b"}, "the changes after it")


async def test_a_pod_that_leaves_the_node_is_gone() -> None:
    async with KubernetesDouble() as kube:
        await kube.put("", "pods", pod("a"))
        async with watching(kube) as watch:
            await until(lambda: names(watch) == {"a"}, "the list")
            await kube.put("", "pods", pod("a", node="n2"))
            await until(lambda: names(watch) == set(), "the pod to leave")


async def test_long_lists_are_read_page_by_page() -> None:
    async with KubernetesDouble() as kube:
        for number in range(7):
            await kube.put("", "pods", pod(f"p{number}"))
        async with watching(kube, WatchTiming(page=3, first_pause_s=0.02)) as watch:
            await until(lambda: names(watch) == {f"p{number}" for number in range(7)}, "all pages")


async def test_missing_rights_are_reported_and_pods_stay_unknown() -> None:
    rights = {"agent": lambda verb, resource: verb != "list"}
    async with KubernetesDouble(rights=rights) as kube, watching(kube, token="agent") as watch:
        await until(lambda: watch.failures >= 1, "the refusal")
        assert "403" in watch.last_error
        assert watch.items is None


async def test_a_server_that_ends_watches_at_once_is_not_hammered() -> None:
    timing = WatchTiming(watch_s=0, first_pause_s=0.05, longest_pause_s=0.2)
    async with KubernetesDouble() as kube, watching(kube, timing) as watch:
        await until(lambda: names(watch) == set(), "the list")
        await asyncio.sleep(1.0)
        assert len(kube.requests) < 25


async def test_the_client_passes_on_what_the_server_answered() -> None:
    async with KubernetesDouble() as kube, KubernetesApi(Access(kube.url)) as api:
        with pytest.raises(ApiError, match='pods "x" not found') as caught:
            await api.get("/api/v1/namespaces/ns/pods/x")
        assert caught.value.status == 404
    with pytest.raises(ApiError) as unreachable:
        async with KubernetesApi(Access(kube.url)) as api:
            await api.get("/api/v1/pods")
    assert unreachable.value.status == 0
