"""The Kubernetes connector as a process: each event, with the acknowledgement and the Event that must come."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.adapters.kubernetes.access import Access
from agent.adapters.kubernetes.api import ApiError, KubernetesApi
from tests.contract.bus import until
from tests.contract.kubernetes.api_server import ApiServer, api_server, merge
from tests.contract.kubernetes.chart_accounts import chart_account
from tests.contract.kubernetes.connector_site import (
    ADAPTER_RULES,
    WORKLOAD_RULES,
    connector_site,
)
from tests.contract.kubernetes.operators.graph_operator import ADAPTERS, GRAPHS, GraphOperator, operated
from tests.contract.kubernetes.operators.operated_pods import NODE, Fate
from tests.doubles.kubernetes import KubernetesDouble
from tests.integration.chart.rendered import rendered

pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")
HPAS = ("autoscaling", "v2", "horizontalpodautoscalers")


@pytest.fixture(params=["double", "real"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[ApiServer]:
    async with api_server(request.param) as found:
        yield found


async def adapter_replicas(operator: GraphOperator, component: str) -> int:
    path = operator.path(ADAPTERS, operator.adapter_name(component), "scale")
    count: int = (await operator.server.api.get(path))["spec"]["replicas"]
    return count


async def test_counts_are_written_and_acknowledged_as_pods_serve_and_leave(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Prefill=1, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES)
        async with site.connector(token, "--graph", operator.graph):
            await site.decide(0, prefill=1, decode=3)
            done = await site.done(0)
            assert (done.scaled_decision_id, done.replicas) == (0, {"prefill": 1, "decode": 3})
            assert await adapter_replicas(operator, "Decode") == 3
            operator.set_fate("Decode", Fate(staying=True))
            await site.decide(1, prefill=1, decode=1)
            await site.done(1, "draining")
            operator.set_fate("Decode", Fate())
            await site.decide(2, decode=2, other=1)
            await site.problem(2, "other", "there are: decode, prefill")
        applied = [(one.decision_id, one.phase) for one in site.acks() if one.status == "applied"]
        assert applied == [(0, "applied"), (1, "draining")]


async def test_a_second_ack_follows_when_the_gpus_of_what_left_are_idle(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Decode=2) as operator:
        token = await server.account("c", *ADAPTER_RULES)

        async def pods() -> list[str]:
            return [one["metadata"]["name"] for one in await operator.pods("Decode")]

        async def placed() -> bool:
            return len(await pods()) == 2

        await until(placed, "two pods")
        holding = await pods()

        async def report() -> None:
            number = 0
            while True:
                await site.report_gpus(number, NODE, [(one, operator.graph, "Decode") for one in holding])
                number += 1
                await asyncio.sleep(0.2)

        reporter = asyncio.create_task(report())
        try:
            async with site.connector(token, "--graph", operator.graph):
                await site.decide(0, decode=2)
                await site.done(0)
                await site.decide(1, decode=1)
                await site.done(1, "draining")

                async def left() -> bool:
                    return len(await pods()) == 1

                await until(left, "one pod")
                # A later decision that changes nothing shows that the connector has seen the pod leave.
                await site.decide(2, decode=1)
                await site.done(2, "draining")
                assert not [one for one in site.acks() if one.decision_id > 0 and one.phase == "drained"]
                holding[:] = await pods()
                drained = await site.done(2, "drained")
                assert drained.scaled_decision_id == 2
        finally:
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)


async def test_a_second_writer_is_named_and_left_alone(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES)
        name = operator.adapter_name("Decode")
        async with site.connector(token, "--graph", operator.graph):
            await site.decide(0, decode=2)
            await site.done(0)
            await site.second_writers()
            edit = {"spec": {"replicas": 4}}
            await merge(server.api, operator.path(ADAPTERS, name), edit, manager="kubectl-edit")
            await site.problem(0, "a person with kubectl-edit set 4 replicas")
            await site.event(name, "a person with kubectl-edit set 4 replicas")
            await site.second_writers(person=1)
            await site.decide(1, decode=3)
            await site.problem(1, "a person with kubectl-edit set 4 replicas where the decision has 3")
            assert await adapter_replicas(operator, "Decode") == 4


async def test_a_second_writer_loses_where_that_is_set(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES)
        path = operator.path(ADAPTERS, operator.adapter_name("Decode"))
        async with site.connector(token, "--graph", operator.graph, "--second-writer", "loses"):
            await site.decide(0, decode=2)
            await site.done(0)
            await merge(server.api, path, {"spec": {"replicas": 4}}, manager="kubectl-edit")
            await site.problem(0, "a person with kubectl-edit set 4 replicas")

            async def ours_again() -> bool:
                return await adapter_replicas(operator, "Decode") == 2

            await until(ours_again, "our count again")


async def test_an_autoscaler_is_named_and_not_fought(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES)
        name = operator.adapter_name("Decode")
        reference = {
            "apiVersion": "nvidia.com/v1alpha1",
            "kind": "DynamoGraphDeploymentScalingAdapter",
            "name": name,
        }
        body = {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": f"{server.mark}-h"},
            "spec": {"scaleTargetRef": reference, "minReplicas": 1, "maxReplicas": 3},
        }
        await server.make(server.path(*HPAS), body)
        async with site.connector(token, "--graph", operator.graph):
            await site.decide(0, decode=3)
            await site.problem(0, f"HorizontalPodAutoscaler {server.mark}-h scales the same target")
            await site.event(name, f"HorizontalPodAutoscaler {server.mark}-h")
            await site.second_writers(autoscaler=1)
            assert await adapter_replicas(operator, "Decode") == 1
            await server.api.send("DELETE", server.path(*HPAS, f"{server.mark}-h"))
            await site.done(0)
            await site.second_writers()


async def test_pods_that_fail_or_find_no_room_are_named_and_block_no_other_role(
    server: ApiServer, tmp_path: Path
) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Prefill=1, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES)
        operator.set_fate("Decode", Fate(crashing="CrashLoopBackOff"))
        async with site.connector(token, "--graph", operator.graph, "--wait-for-capacity", "1"):
            await site.decide(0, decode=2, prefill=2)
            await site.problem(0, "decode: pod", "CrashLoopBackOff after 3 restarts")
            await site.event(operator.adapter_name("Decode"), "CrashLoopBackOff after 3 restarts")
            await site.acked(0, lambda one: one.replicas.get("prefill") == 2, "two of prefill")
            operator.set_fate("Decode", Fate())
            await site.done(0)
            operator.set_fate("Decode", Fate(unschedulable="0/4 nodes: insufficient nvidia.com/gpu"))
            await site.decide(1, decode=3, prefill=2)
            failed = await site.problem(1, "insufficient_capacity", "0/4 nodes: insufficient nvidia.com/gpu")
            assert (failed.status, failed.retryable, failed.scaled_decision_id) == ("failed", False, 0)
            assert await adapter_replicas(operator, "Decode") == 2


async def test_nothing_is_raised_during_a_rollout_or_beside_a_planner_that_acts(
    server: ApiServer, tmp_path: Path
) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES)
        operator.report(restart={"observedID": "r1", "phase": "Restarting"})

        async def restarting() -> bool:
            graph = await server.api.get(operator.path(GRAPHS, operator.graph))
            return bool((graph.get("status") or {}).get("restart"))

        await until(restarting, "the restart in the graph's status")
        async with site.connector(token, "--graph", operator.graph):
            await site.decide(0, decode=2)
            await site.problem(0, "nothing is raised now: restart r1 is Restarting")
            assert await adapter_replicas(operator, "Decode") == 1
            operator.report()
            await site.done(0)
            graph = await server.api.get(operator.path(GRAPHS, operator.graph))
            workers = graph["spec"]["components"]

            async def planned(**settings: bool) -> None:
                """Set what the graph's own planner does."""
                containers = [{"name": "main", "args": ["--config", json.dumps(settings)]}]
                planner = {"name": "Planner", "type": "planner", "replicas": 1}
                planner["podTemplate"] = {"spec": {"containers": containers}}
                body = {"spec": {"components": [*workers, planner]}}
                await merge(server.api, operator.path(GRAPHS, operator.graph), body)

            await planned()
            await site.problem(0, "the graph's planner Planner scales it")
            await site.decide(1, decode=3)
            await site.problem(1, "the graph's planner Planner scales it")
            await planned(advisory=True, enable_power_awareness=True)
            await site.problem(1, "the graph's planner Planner sets power limits")
            assert await adapter_replicas(operator, "Decode") == 2
            await planned(advisory=True)
            await site.done(1)


async def test_a_killed_connector_goes_on_where_it_was(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES)
        operator.set_fate("Decode", Fate(starting=True))
        async with site.connector(token, "--graph", operator.graph) as process:
            await site.decide(0, decode=3)
            await site.acked(0, lambda one: one.phase == "starting", "starting")
            process.kill()
            await process.wait()
        operator.set_fate("Decode", Fate())
        async with site.connector(token, "--graph", operator.graph):
            await site.done(0)
        assert [one.phase for one in site.acks() if one.status == "applied"] == ["applied"]


@pytest.mark.parametrize("away_s", [0.0, pytest.param(60.0, marks=pytest.mark.nightly)])
async def test_a_server_that_is_away_holds_decisions_and_is_not_flooded_with_lists(
    tmp_path: Path, away_s: float
) -> None:
    async with KubernetesDouble() as kube, KubernetesApi(Access(kube.url)) as api:
        server = ApiServer(api, "ns")
        async with connector_site(server, tmp_path) as site, operated(server, Decode=1) as operator:
            token = await server.account("c", *ADAPTER_RULES)
            async with site.connector(token, "--graph", operator.graph):
                await site.decide(0, decode=2)
                await site.done(0)
                await kube.stop()
                await site.decide(1, decode=3)
                away = await site.acked(1, lambda one: bool(one.reason), "a reason")
                assert (away.retryable, away.scaled_decision_id) == (True, 0)
                await asyncio.sleep(away_s)
                before = len(kube.requests)
                await kube.start_again()
                await site.done(1)
                assert _lists(kube.requests[before:]) == 0
                kube.compact()
                before = len(kube.requests)
                kube.drop_watches()
                await site.decide(2, decode=1)
                await site.acked(2, lambda one: one.status == "applied", "applied")
                assert _lists(kube.requests[before:]) <= 1


def _lists(requests: list[tuple[str, str]]) -> int:
    """Lists of autoscalers, which only the connector reads."""
    return sum(
        1
        for method, path in requests
        if method == "GET" and "limit=500" in path and "watch=1" not in path and "horizontalpod" in path
    )


async def test_missing_rights_and_definitions_are_acknowledged_with_what_to_do(
    server: ApiServer, tmp_path: Path
) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES[:-1])
        async with site.connector(token, "--graph", operator.graph):
            await site.decide(0, decode=2)
            await site.problem(0, "patch on dynamographdeploymentscalingadapters/scale", "verbs: [patch]")
    async with connector_site(server, tmp_path / "second") as site:
        token = await server.account("d", *WORKLOAD_RULES, ("x.wattscale.test", "engines", "get,list,watch"))
        async with site.connector(token, "--target", "decode=engines.v1.x.wattscale.test/e"):
            await site.decide(0, decode=2)
            await site.problem(0, "engines/scale")


async def test_a_deployment_is_scaled_by_a_mapping(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site:
        await server.allow_pods()
        token = await server.account("c", *WORKLOAD_RULES)
        name = f"{server.mark}-d"
        path = server.path("apps", "v1", "deployments")
        await server.make(path, _deployment(name))
        async with site.connector(token, "--target", f"decode=deployments.v1.apps/{name}"):
            await site.decide(0, decode=2)

            async def written() -> bool:
                return bool((await server.api.get(f"{path}/{name}"))["spec"]["replicas"] == 2)

            await until(written, "two replicas wanted")
            for index in range(2):
                await _serving_pod(server, f"{name}-{index}", name)
            status = {"observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}
            await merge(server.api, f"{path}/{name}/status", {"status": status | {"availableReplicas": 2}})
            await site.done(0)
            await site.decide(1, decode=1, prefill=1)
            rejected = await site.problem(1, "no such pool here: prefill")
            assert rejected.status == "rejected"
            await server.api.send("DELETE", f"{path}/{name}")
            await site.decide(2, decode=1)
            await site.problem(2, f"there is no deployments.apps/{name}")


@pytest.mark.xdist_group("chart")
async def test_the_charts_role_is_enough_for_the_targets_that_it_names(server: ApiServer, tmp_path: Path) -> None:
    name = f"{server.mark}-d"
    targets = {"decode": f"deployments.v1.apps/{name}", "prefill": f"deployments.v1.apps/{name}-p"}
    settings = {"deployment": "prod", "namespace": server.namespace, "targets": targets}
    connectors = json.dumps({"chat": {"kind": "kubernetes", "settings": settings}})
    release = rendered("minimal", release=server.mark, extra=("--set-json", f"connectors={connectors}"))
    async with connector_site(server, tmp_path) as site:
        token = await chart_account(server, release, "-connector-chat")
        path = server.path("apps", "v1", "deployments")
        for one in (name, f"{name}-p", f"{name}-of-others"):
            await server.make(path, _deployment(one))
        async with site.connector(token, *(f"--target={pool}={target}" for pool, target in targets.items())):
            await site.decide(0, decode=2, prefill=3)

            async def written() -> bool:
                counts = [(await server.api.get(f"{path}/{one}"))["spec"]["replicas"] for one in (name, f"{name}-p")]
                return counts == [2, 3]

            await until(written, "the counts of both targets")
        async with server.as_account(token) as api:
            with pytest.raises(ApiError, match="403"):
                await merge(api, f"{path}/{name}-of-others/scale", {"spec": {"replicas": 2}})


async def test_two_deployments_for_one_target_are_refused_by_name(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path, ["prod", "other"]) as site, operated(server, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES)
        async with site.connector(token, "--graph", operator.graph) as first:
            await site.decide(0, decode=1)
            await site.done(0)
            async with site.of("other").connector(token, "--graph", operator.graph, stderr=PIPE) as second:
                _, log = await asyncio.wait_for(second.communicate(), 60)
                assert second.returncode == 2, log
            sentence = log.decode().splitlines()[-1]
            assert f"target graph {operator.graph} in {server.namespace}" in sentence
            assert "of prod and by" in sentence
            assert f"(process {first.pid}" in sentence
            # The one that holds it goes on.
            assert first.returncode is None
            await site.decide(1, decode=2)
            await site.done(1)


@pytest.mark.long
async def test_the_connector_passes_the_check_of_actuators(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path, []) as site, operated(server, Prefill=1, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES)
        async with site.connector(token, "--graph", operator.graph):
            command = ("-m", "deploy.cli.main", "connector", "check", "prod", "--nats-url", site.url)
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, "--timeout-s", "90", stdout=PIPE, stderr=PIPE
            )
            out, log = await process.communicate()
            assert process.returncode == 0, (out, log)
            assert out.decode().splitlines()[-1].startswith("all ")


def _deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


async def _serving_pod(server: ApiServer, name: str, app: str) -> None:
    pods = server.path("", "v1", "pods")
    spec = {
        "containers": [{"name": "c", "image": "none"}],
        "automountServiceAccountToken": False,
        "nodeName": "no-such-node",
    }
    await server.make(pods, {"metadata": {"name": name, "labels": {"app": app}}, "spec": spec})
    ready = {"type": "Ready", "status": "True"}
    await merge(server.api, f"{pods}/{name}/status", {"status": {"phase": "Running", "conditions": [ready]}})
