"""The operator of the tests keeps what a connector is to meet: the echo, the lag, rollouts, restarts, pods that fail.

What the core of connectors makes of it is asserted beside it, on the double and on a real API server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from agent.core.scaling.kubernetes.pool_views import graph_component, pool_seen
from agent.core.scaling.kubernetes.workload_pods import worker_pod
from agent.core.scaling.scaling_types import PoolSeen
from tests.contract.kubernetes.api_server import FIRST_WITH_OWNED_SCALES, api_server, merge
from tests.contract.kubernetes.operators.graph_operator import ADAPTERS, GRAPHS, GraphOperator, operated
from tests.contract.kubernetes.operators.operated_pods import Fate


@pytest.fixture(params=["double", "real"])
async def operator(request: pytest.FixtureRequest) -> AsyncIterator[GraphOperator]:
    async with api_server(request.param) as server, operated(server, Prefill=1, Decode=1) as found:
        await reached(found, "Decode", lambda seen: seen.ready == 1)
        yield found


async def scale(operator: GraphOperator, component: str, replicas: int) -> None:
    path = operator.path(ADAPTERS, operator.adapter_name(component), "scale")
    await merge(operator.server.api, path, {"spec": {"replicas": replicas}}, manager="wattscale")


async def seen(operator: GraphOperator, component: str) -> PoolSeen:
    """One pool, read as a connector reads it."""
    api = operator.server.api
    adapter = await api.get(operator.path(ADAPTERS, operator.adapter_name(component)))
    graph = await api.get(operator.path(GRAPHS, operator.graph))
    pods = [worker_pod(one) for one in await operator.pods(component)]
    return pool_seen(component, adapter, graph_component(graph, component), pods, time.time())


async def reached(operator: GraphOperator, component: str, holds: Callable[[PoolSeen], bool]) -> PoolSeen:
    """Wait until a pool is seen as asked."""
    found = None
    try:
        async with asyncio.timeout(60):
            while True:
                found = await seen(operator, component)
                if holds(found):
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited 40 s in vain; last seen: {found}") from None


async def test_a_pool_grows_and_shrinks_with_its_adapter(operator: GraphOperator) -> None:
    await scale(operator, "Decode", 3)
    grown = await reached(operator, "Decode", lambda one: one.ready == 3)
    assert (grown.wanted, grown.leaving, grown.hold, grown.problem) == (3, 0, "", None)
    if operator.server.version >= FIRST_WITH_OWNED_SCALES:
        assert grown.writer == ""
    await scale(operator, "Decode", 1)
    await reached(operator, "Decode", lambda one: one.ready == 1 and one.leaving == 0)
    assert (await seen(operator, "Prefill")).ready == 1


async def test_an_adapter_echoes_its_spec_while_the_graph_lags(operator: GraphOperator) -> None:
    operator.set_fate("Decode", Fate(lagging=True))
    await scale(operator, "Decode", 4)
    path = operator.path(ADAPTERS, operator.adapter_name("Decode"), "scale")
    async with asyncio.timeout(60):
        while (await operator.server.api.get(path))["status"]["replicas"] != 4:
            await asyncio.sleep(0.02)
    lagging = await seen(operator, "Decode")
    assert (lagging.wanted, lagging.ready) == (4, 1)
    operator.set_fate("Decode", Fate())
    await reached(operator, "Decode", lambda one: one.ready == 4)


async def test_the_scheduler_s_reason_is_seen_until_there_is_room(operator: GraphOperator) -> None:
    operator.set_fate("Decode", Fate(unschedulable="0/4 nodes are available: insufficient nvidia.com/gpu"))
    await scale(operator, "Decode", 2)
    waiting = await reached(operator, "Decode", lambda one: one.problem is not None)
    assert waiting.problem is not None
    assert "insufficient nvidia.com/gpu" in waiting.problem.reason
    assert waiting.problem.retryable
    operator.set_fate("Decode", Fate())
    await reached(operator, "Decode", lambda one: one.ready == 2 and one.problem is None)


async def test_a_crashing_pod_is_named_and_the_other_role_goes_on(operator: GraphOperator) -> None:
    operator.set_fate("Decode", Fate(crashing="CrashLoopBackOff"))
    crashed = await reached(operator, "Decode", lambda one: one.problem is not None and one.ready == 0)
    assert crashed.problem is not None
    assert "container main: CrashLoopBackOff after 3 restarts" in crashed.problem.reason
    await scale(operator, "Prefill", 2)
    await reached(operator, "Prefill", lambda one: one.ready == 2 and one.problem is None)


async def test_pods_that_leave_slowly_are_seen_to_leave(operator: GraphOperator) -> None:
    await scale(operator, "Decode", 2)
    await reached(operator, "Decode", lambda one: one.ready == 2)
    operator.set_fate("Decode", Fate(staying=True))
    await scale(operator, "Decode", 1)
    await reached(operator, "Decode", lambda one: one.ready == 1 and one.leaving == 1)
    operator.set_fate("Decode", Fate())
    await reached(operator, "Decode", lambda one: one.leaving == 0)


async def test_restarts_and_rolling_updates_are_seen_until_they_end(operator: GraphOperator) -> None:
    operator.report(restart={"observedID": "r1", "phase": "Restarting"})
    await reached(operator, "Decode", lambda one: one.hold == "restart r1 is Restarting")
    operator.report(restart={"observedID": "r1", "phase": "Completed"}, rolling_update={"phase": "InProgress"})
    await reached(operator, "Decode", lambda one: one.hold == "a rolling update is InProgress")
    operator.report(rolling_update={"phase": "Completed"})
    await reached(operator, "Decode", lambda one: one.hold == "")


async def test_a_person_who_edits_the_count_is_named(operator: GraphOperator) -> None:
    path = operator.path(ADAPTERS, operator.adapter_name("Decode"))
    await scale(operator, "Decode", 2)
    await merge(operator.server.api, path, {"spec": {"replicas": 3}}, manager="kubectl-edit")
    edited = await reached(operator, "Decode", lambda one: one.wanted == 3)
    assert edited.writer == "a person with kubectl-edit"
