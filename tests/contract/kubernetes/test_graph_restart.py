"""Restart commands through processes: the command line sends, the connector has a graph's workers restarted."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus_schemas import v1
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last
from tests.contract.bus import until
from tests.contract.kubernetes.api_server import ApiServer, api_server, merge
from tests.contract.kubernetes.connector_site import ADAPTER_RULES, ConnectorSite, connector_site
from tests.contract.kubernetes.operators.graph_operator import GRAPHS, GROUP, GraphOperator, operated
from tests.contract.kubernetes.operators.operated_pods import Fate, Item

pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")
RULES = (*ADAPTER_RULES, (GROUP, GRAPHS, "patch"))


@pytest.fixture(params=["double", "real"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[ApiServer]:
    async with api_server(request.param) as found:
        yield found


def settings(operator: GraphOperator, *, allowed: bool = True) -> dict[str, object]:
    return {"deployment": "prod", "graph": operator.graph, "restart_graphs": allowed}


async def commanded(site: ConnectorSite, *arguments: str) -> tuple[int, str]:
    """`wattscale deployment restart`: its exit code, and what it printed."""
    command = ("-m", "deploy.cli.main", "deployment", "restart", site.deployment, "--nats-url", site.url, *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode()


def phases(site: ConnectorSite, restart_id: str) -> list[tuple[str, tuple[str, ...]]]:
    """What was acknowledged of a restart: each phase once, in order."""
    found = [(one.restart.phase, one.restart.in_progress) for one in site.acks() if one.restart is not None]
    ids = [one.restart.restart_id for one in site.acks() if one.restart is not None]
    own = [one for one, name in zip(found, ids, strict=True) if name == restart_id]
    return [one for index, one in enumerate(own) if index == 0 or own[index - 1] != one]


def restarting(site: ConnectorSite, component: str) -> bool:
    """Whether r1 was reported to restart this component alone."""
    return ("restarting", (component,)) in phases(site, "r1")


async def reported(site: ConnectorSite, restart_id: str, *words: str) -> v1.RestartProgress:
    """Wait for a report whose phase and reason have these words."""

    def found() -> v1.RestartProgress | None:
        progress = [one.restart for one in site.acks() if one.restart is not None]
        own = [one for one in progress if one.restart_id == restart_id]
        return next((one for one in own if all(word in f"{one.phase} {one.reason}" for word in words)), None)

    progress = await until(found, f"restart {restart_id} with {words}")
    assert progress is not None
    return progress


async def graph_of(operator: GraphOperator) -> Item:
    return await operator.server.api.get(operator.path(GRAPHS, operator.graph))


async def names(operator: GraphOperator) -> set[str]:
    pods = [*await operator.pods("Prefill"), *await operator.pods("Decode")]
    return {one["metadata"]["name"] for one in pods}


async def test_a_graph_is_restarted_in_the_order_that_was_asked_for(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Prefill=1, Decode=2) as operator:
        token = await server.account("c", *RULES)
        async with site.connector(token, settings=settings(operator)):
            await site.decide(0, prefill=1, decode=2)
            await site.done(0)
            before = await names(operator)
            pin = v1.DeploymentControl(
                time=datetime.now(UTC), deployment="prod", action="pin", replicas={"decode": 2}, command_id="p1"
            )
            await publish(site.bus, site.bus.subjects.control_deployment("prod"), pin, "pin")
            for component in operator.components:
                operator.set_fate(component, Fate(starting=True))
            command = asyncio.create_task(commanded(site, "--order", "Decode,Prefill", "--id", "r1", "--wait"))
            for component in ("Decode", "Prefill"):
                await until(functools.partial(restarting, site, component), component)
                operator.set_fate(component, Fate())
            code, printed = await command
            assert (code, printed.splitlines()[-1]) == (0, "completed")
            # One component at a time, in this order, and all pods are new.
            shown = phases(site, "r1")
            assert [now for phase, now in shown if phase == "restarting"] == [("Decode",), ("Prefill",)]
            assert shown[-1] == ("completed", ())
            assert not before & await names(operator)
            spec = (await graph_of(operator))["spec"]["restart"]
            assert spec == {"id": "r1", "strategy": {"type": "Sequential", "order": ["Decode", "Prefill"]}}
            # For planners the pin is still the newest command.
            stored = await last(site.bus, site.bus.subjects.control_deployment("prod"))
            assert stored is not None
            assert isinstance(stored.message, v1.DeploymentControl)
            kept = stored.message
            assert (kept.action, kept.replicas, kept.command_id) == ("pin", {"decode": 2}, "p1")


async def test_parallel_is_one_at_a_time_where_there_is_a_power_budget(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Prefill=1, Decode=1) as operator:
        token = await server.account("c", *RULES)
        async with site.connector(token, settings=settings(operator)):
            await site.decide(0, prefill=1, decode=1)
            await site.done(0)
            assert (await commanded(site, "--strategy", "parallel", "--id", "r1", "--wait"))[0] == 0
            assert (await graph_of(operator))["spec"]["restart"]["strategy"] == {"type": "Parallel"}
            record = v1.PlanRecord(time=datetime.now(UTC), deployment="prod", decision_id=0, budget_watts=5000.0)
            await publish(site.bus, site.bus.subjects.telemetry_plan("prod"), record, "plan")
            code, printed = await commanded(site, "--strategy", "parallel", "--id", "r2", "--wait")
            assert (code, "one component at a time: the site has a power budget" in printed) == (0, True)
            assert (await graph_of(operator))["spec"]["restart"]["strategy"] == {"type": "Sequential"}
            assert all(len(now) <= 1 for _, now in phases(site, "r2"))


async def test_what_cannot_be_done_is_rejected_and_what_is_in_progress_is_waited_for(
    server: ApiServer, tmp_path: Path
) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Prefill=1, Decode=1) as operator:
        token = await server.account("c", *RULES)
        async with site.connector(token, settings=settings(operator, allowed=False)):
            await site.decide(0, prefill=1, decode=1)
            await site.done(0)
            code, printed = await commanded(site, "--id", "off", "--wait")
            assert (code, "set restart_graphs: true" in printed) == (1, True)
        async with site.connector(token, settings=settings(operator)):
            code, printed = await commanded(site, "--order", "Decode", "--id", "part", "--wait")
            assert (code, "the order must name every component once: Prefill, Decode" in printed) == (1, True)
            await site.event(operator.graph, "restart part is rejected")
            operator.report(rolling_update={"phase": "InProgress"})

            async def rolling() -> bool:
                return bool((await graph_of(operator)).get("status", {}).get("rollingUpdate"))

            await until(rolling, "the update in the graph's status")
            assert (await commanded(site, "--id", "later"))[0] == 0
            await reported(site, "later", "waiting", "a rolling update is InProgress")
            assert "restart" not in (await graph_of(operator))["spec"]
            operator.report()
            await reported(site, "later", "completed")


async def test_a_killed_connector_follows_its_restart_and_another_writers_takes_its_place(
    server: ApiServer, tmp_path: Path
) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Prefill=1, Decode=1) as operator:
        token = await server.account("c", *RULES)
        async with site.connector(token, settings=settings(operator)) as process:
            await site.decide(0, prefill=1, decode=1)
            await site.done(0)
            operator.set_fate("Prefill", Fate(starting=True))
            assert (await commanded(site, "--id", "r1"))[0] == 0
            await reported(site, "r1", "restarting")
            process.kill()
            await process.wait()
        # A later command takes the place of the restart's on the bus.
        pause = v1.DeploymentControl(time=datetime.now(UTC), deployment="prod", action="pause", command_id="p1")
        await publish(site.bus, site.bus.subjects.control_deployment("prod"), pause, "pause")
        before = await graph_of(operator)
        async with site.connector(token, settings=settings(operator)):
            # Nothing is raised meanwhile, and the restart is not asked for again.
            await site.decide(1, prefill=2, decode=1)
            await site.problem(1, "nothing is raised now: restart r1 is Restarting")
            assert (await graph_of(operator))["metadata"]["generation"] == before["metadata"]["generation"]
            foreign = {"spec": {"restart": {"id": "mine", "strategy": {"type": "Sequential"}}}}
            await merge(server.api, operator.path(GRAPHS, operator.graph), foreign, manager="kubectl")
            await reported(site, "r1", "superseded")
            operator.set_fate("Prefill", Fate())
            await site.done(1)


async def test_the_missing_right_is_named_with_the_rule_to_add(server: ApiServer, tmp_path: Path) -> None:
    async with connector_site(server, tmp_path) as site, operated(server, Decode=1) as operator:
        token = await server.account("c", *ADAPTER_RULES)
        async with site.connector(token, settings=settings(operator)):
            await site.decide(0, decode=1)
            await site.problem(0, "patch on dynamographdeployments in namespace", "verbs: [patch]")
