"""`annotate: true` through a process of the connector: each worker pod's planned power limit, as an annotation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.core.pod_limits import ANNOTATION
from bus_schemas import v1
from bus_schemas.jetstream.publisher import publish
from tests.contract.bus import until
from tests.contract.kubernetes.api_server import ApiServer, api_server, merge
from tests.contract.kubernetes.connector_site import ADAPTER_RULES, ConnectorSite, connector_site
from tests.contract.kubernetes.operators.graph_operator import GRAPHS, GraphOperator, operated
from tests.contract.kubernetes.operators.operated_pods import Item
from tests.contract.kubernetes.operators.reconciling import watched

pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")
RULES = (*ADAPTER_RULES, ("", "pods", "patch"))
SETTLE_S = 1.0


@pytest.fixture(params=["double", "real"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[ApiServer]:
    async with api_server(request.param) as found:
        yield found


class Plans:
    """Publishes plan records of the site's deployment."""

    def __init__(self, site: ConnectorSite) -> None:
        self._site, self._number = site, 0

    async def publish(self, *chain: str, budget_watts: float | None = 5000.0, **watts: float | None) -> None:
        """The next plan: a limit for each GPU of these pools. ``chain``: codes of reasons."""
        reasons = tuple(v1.Reason(code=one, text=one) for one in chain)
        pools = {
            pool: v1.PoolRecord(role="decode", current=1, wanted=1, granted=1, cap_watts=cap, chain=reasons)
            for pool, cap in watts.items()
        }
        deployment = self._site.deployment
        record = v1.PlanRecord(
            time=datetime.now(UTC), deployment=deployment, decision_id=0, pools=pools, budget_watts=budget_watts
        )
        self._number += 1
        bus = self._site.bus
        await publish(bus, bus.subjects.telemetry_plan(deployment), record, f"plan-{self._number}")


def limit_of(pod: Item) -> str:
    """A pod's annotation; empty where it has none."""
    return str((pod.get("metadata", {}).get("annotations") or {}).get(ANNOTATION, ""))


async def limits(operator: GraphOperator, component: str) -> list[str]:
    """The annotation of each of a component's pods."""
    return [limit_of(one) for one in await operator.pods(component)]


async def limited(operator: GraphOperator, component: str, *watts: str) -> None:
    """Wait until the component's pods have these limits."""

    async def found() -> bool:
        return sorted(await limits(operator, component)) == sorted(watts)

    await until(found, f"{component} at {watts}")


def settings(operator: GraphOperator, **more: object) -> dict[str, object]:
    common = {"deployment": "prod", "graph": operator.graph, "annotate": True, "annotate_settle_s": SETTLE_S}
    return {**common, **more}


@asynccontextmanager
async def changes(server: ApiServer) -> AsyncIterator[list[tuple[str, str]]]:
    """Every change of a limit of the test's pods, in the order of the server: (pod, limit)."""
    seen: list[tuple[str, str]] = []
    watch = watched(server, server.path("", "v1", "pods"))

    def changed(before: Item | None, after: Item | None) -> None:
        old, new = (
            (one or {}).get("metadata", {}).get("annotations", {}).get(ANNOTATION, "") for one in (before, after)
        )
        if after is not None and old != new:
            seen.append((after["metadata"]["name"], new))

    watch.on_item(changed)
    task = asyncio.create_task(watch.run())
    try:
        await until(lambda: watch.items is not None, "the pods")
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_worker_pod_gets_its_planned_limit_and_new_ones_too(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Prefill=1, Decode=1) as operator:
        token = await server.account("c", *RULES)
        graph = await server.api.get(operator.path(GRAPHS, operator.graph))
        plans = Plans(site)
        await plans.publish(prefill=400.9, decode=300.0)
        async with site.connector(token, settings=settings(operator)):
            # The plan was published before the connector began, and watts are rounded down.
            await limited(operator, "Prefill", "400")
            await limited(operator, "Decode", "300")
            await site.decide(0, prefill=1, decode=3)
            await site.done(0)
            await limited(operator, "Decode", "300", "300", "300")
        after = await server.api.get(operator.path(GRAPHS, operator.graph))
        assert [one.get("podTemplate") for one in after["spec"]["components"]] == [None, None]
        assert after["metadata"].get("annotations") == graph["metadata"].get("annotations")


async def test_lowers_come_before_raises(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Prefill=2, Decode=2) as operator:
        token = await server.account("c", *RULES)
        plans = Plans(site)
        async with site.connector(token, settings=settings(operator)), changes(server) as seen:
            await plans.publish(prefill=300.0, decode=500.0)
            await limited(operator, "Prefill", "300", "300")
            await limited(operator, "Decode", "500", "500")
            begun = len(seen)
            await plans.publish(prefill=500.0, decode=300.0)
            await limited(operator, "Prefill", "500", "500")
            await until(lambda: len(seen) >= begun + 4, "all changes to be seen")
        assert [watts for _, watts in seen[begun:]] == ["300", "300", "500", "500"]


async def test_a_limit_that_another_writer_set_is_named_and_left_alone(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Decode=1) as operator:
        token = await server.account("c", *RULES)
        plans = Plans(site)
        await plans.publish(decode=300.0)
        async with site.connector(token, settings=settings(operator)):
            await limited(operator, "Decode", "300")
            pod = (await operator.pods("Decode"))[0]["metadata"]["name"]
            path = server.path("", "v1", "pods", pod)
            await merge(server.api, path, {"metadata": {"annotations": {ANNOTATION: "250"}}}, manager="kubectl")
            await site.event(operator.adapter_name("Decode"), f"{ANNOTATION}=250 on {pod}")
            await plans.publish(decode=280.0)
            # A pod beside it shows that the newer plan was received.
            await site.decide(0, decode=2)
            await limited(operator, "Decode", "250", "280")


async def test_what_is_only_watched_gets_no_limit_and_switching_power_off_takes_ours_back(
    server: ApiServer, tmp_path: Path
) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Prefill=1, Decode=1) as operator:
        token = await server.account("c", *RULES)
        plans = Plans(site)
        foreign = {"metadata": {"annotations": {ANNOTATION: "222"}}}

        async def placed() -> bool:
            return bool(await operator.pods("Prefill"))

        await until(placed, "a pod")
        name = (await operator.pods("Prefill"))[0]["metadata"]["name"]
        await merge(server.api, server.path("", "v1", "pods", name), foreign, manager="kubectl")
        await plans.publish("advisory", prefill=300.0, decode=300.0)
        async with site.connector(token, settings=settings(operator)):
            await site.decide(0, prefill=1, decode=1)
            await site.done(0)
            await plans.publish(decode=300.0)
            await limited(operator, "Decode", "300")
            assert await limits(operator, "Prefill") == ["222"]
            await plans.publish(budget_watts=None, prefill=None, decode=None)
            await limited(operator, "Decode", "")
            assert await limits(operator, "Prefill") == ["222"]


async def test_the_missing_right_is_named_with_the_rule_to_add(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES)
        async with site.connector(token, settings=settings(operator)):
            await site.decide(0, decode=2)
            await site.problem(
                0, "patch on pods in namespace", '- {apiGroups: [""], resources: ["pods"], verbs: [patch]}'
            )
