"""A real API server that is killed and comes back: the connector and the agent's look at pods go on where they were.

On the double: `tests/contract/kubernetes/test_connector_process.py` and `tests/integration/agent/test_list_watch.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")

from agent.adapters.kubernetes.api import ApiError
from agent.adapters.kubernetes.list_watch import ListWatch
from agent.adapters.kubernetes.pods import pods_of_node
from agent.core.ownership import Pod
from tests.contract.bus import until
from tests.contract.kubernetes.api_server import ApiServer, api_server, merge
from tests.contract.kubernetes.chart_accounts import chart_account
from tests.contract.kubernetes.connector_site import connector_site
from tests.contract.kubernetes.operators.graph_operator import operated
from tests.contract.kubernetes.operators.operated_pods import NODE
from tests.contract.kubernetes.operators.reconciling import FAST
from tests.integration.chart.rendered import rendered
from tests.tools.kube_apiserver import KubeApiServer, kube_apiserver


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with api_server("real") as found:
        yield found


@pytest.fixture
def process(server: ApiServer) -> KubeApiServer:
    found = kube_apiserver()
    if found is None:
        pytest.skip("this API server belongs to somebody else and is not killed")
    return found


async def test_decisions_wait_for_a_server_that_is_away_and_are_carried_out_over_its_new_history(
    server: ApiServer, process: KubeApiServer, tmp_path: Path
) -> None:
    graph = f"{server.mark}-g"
    settings = {"deployment": "prod", "namespace": server.namespace, "graph": graph}
    connectors = {"chat": {"kind": "kubernetes", "settings": settings}}
    release = rendered(
        "minimal",
        release=server.mark,
        extra=("--set-json", f"connectors={json.dumps(connectors)}"),
    )
    token = await chart_account(server, release, "-connector-chat")
    async with connector_site(server, tmp_path) as site, operated(server, Decode=1) as operator:
        assert operator.graph == graph
        async with site.connector(token, "--graph", graph):
            await site.decide(0, decode=2)
            await site.done(0)
            await asyncio.to_thread(process.kill)
            await site.decide(1, decode=3)
            away = await site.acked(1, lambda one: bool(one.reason), "a reason")
            assert (away.retryable, away.scaled_decision_id) == (True, 0)
            await asyncio.to_thread(process.forget_history)
            await asyncio.to_thread(process.start_again)
            await site.done(1)
            await site.decide(2, decode=1)
            await site.acked(2, lambda one: one.status == "applied", "applied")


async def test_the_agent_sees_the_pods_of_its_node_again(server: ApiServer, process: KubeApiServer) -> None:
    token = await chart_account(server, rendered("annotations", release=server.mark), "-agent")
    await server.allow_pods()
    async with watching(server, token) as watch:
        first, second = f"{server.mark}-a", f"{server.mark}-b"
        await _pod(server, first)
        await until(lambda: _seen(server, watch) == {first}, "the first pod")
        await asyncio.to_thread(process.kill)
        await until(lambda: watch.interrupted, "the watch to be cut")
        assert _seen(server, watch) == {first}
        await asyncio.to_thread(process.forget_history)
        await asyncio.to_thread(process.start_again)
        await _pod(server, second)
        limit = {"metadata": {"annotations": {"dynamo.nvidia.com/gpu-power-limit": "400"}}}
        await merge(server.api, server.path("", "v1", "pods", first), limit)
        await until(lambda: _seen(server, watch) == {first, second}, "both pods")

        def limited() -> bool:
            pods = (watch.items or {}).values()
            return any(one.annotations.get("dynamo.nvidia.com/gpu-power-limit") == "400" for one in pods)

        await until(limited, "the annotation")
        path = server.path("", "v1", "pods", first)
        await server.api.send("DELETE", path, query={"gracePeriodSeconds": "0"})
        await until(lambda: _seen(server, watch) == {second}, "the pod to go")


async def test_without_the_right_to_pods_the_agent_says_so(server: ApiServer) -> None:
    async with watching(server, await server.account("nothing")) as watch:
        await until(lambda: watch.failures >= 1, "the refusal")
        assert "403" in watch.last_error
        assert "\n" not in watch.last_error
        assert watch.items is None


@asynccontextmanager
async def watching(server: ApiServer, token: str) -> AsyncIterator[ListWatch[Pod]]:
    """The agent's look at the pods of the node where the tests' pods are."""
    async with server.as_account(token) as api:
        watch = pods_of_node(api, NODE, timing=FAST)
        task = asyncio.create_task(watch.run())
        try:
            yield watch
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _seen(server: ApiServer, watch: ListWatch[Pod]) -> set[str] | None:
    """This test's pods; None while nothing is known."""
    if watch.items is None:
        return None
    return {one.ref.name for one in watch.items.values() if one.ref.namespace == server.namespace}


async def _pod(server: ApiServer, name: str) -> None:
    spec = {
        "containers": [{"name": "main", "image": "none"}],
        "nodeName": NODE,
        "automountServiceAccountToken": False,
    }
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    async with asyncio.timeout(60):
        while True:
            try:
                await server.make(server.path("", "v1", "pods"), body)
            except ApiError as error:
                if error.status != 0:
                    raise
                await asyncio.sleep(0.1)
            else:
                return
