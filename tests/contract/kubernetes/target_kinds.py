"""Every kind of target under one face: a deployment with pools prefill and decode, its controller, and its events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from agent.adapters.kubernetes.api import ApiError
from tests.contract.bus import until
from tests.contract.kubernetes.api_server import ApiServer, Rule, merge
from tests.contract.kubernetes.connector_site import GENERAL, READ, ConnectorSite
from tests.contract.kubernetes.operators.graph_operator import ADAPTERS, GRAPHS, GROUP, GraphOperator, define_graphs
from tests.contract.kubernetes.operators.operated_pods import Fate
from tests.contract.kubernetes.operators.workload_operator import (
    DEPLOYMENT,
    ENGINE,
    LEADER_WORKER_SET,
    SCALING_GROUP,
    STATEFUL_SET,
    Workload,
    WorkloadKind,
    WorkloadOperator,
)

WORKLOADS = {
    "deployment": DEPLOYMENT,
    "statefulset": STATEFUL_SET,
    "lws": LEADER_WORKER_SET,
    "pcsg": SCALING_GROUP,
    "other": ENGINE,
}
GRAPH_VERSIONS = {"dgdsa-v1beta1": "v1beta1", "dgdsa-v1alpha1": "v1alpha1"}
POOLS = ("prefill", "decode")


@dataclass
class ScaledPool:
    """One pool's object."""

    server: ApiServer
    target: str
    """As in the connector's settings."""
    path: str
    api_version: str
    kind: str
    name: str
    set_fate: Callable[[Fate], None]
    make: Callable[[int], Awaitable[None]]
    """Create the object anew with a count."""

    async def wanted(self) -> int:
        """The count at ``/scale``."""
        count: int = (await self.server.api.get(f"{self.path}/scale"))["spec"].get("replicas", 0)
        return count

    async def wants(self, count: int) -> None:
        """Wait until the count is this one."""

        async def holds() -> bool:
            return await self.wanted() == count

        await until(holds, f"{count} replicas wanted of {self.name}")

    async def edit(self, count: int, manager: str = "kubectl-edit") -> None:
        """Somebody else writes the count."""
        await merge(self.server.api, self.path, {"spec": {"replicas": count}}, manager=manager)

    async def touch(self, mark: str) -> None:
        """Somebody else writes something that is not the count."""
        await merge(self.server.api, self.path, {"metadata": {"labels": {"touched": mark}}}, manager="kubectl-label")

    @property
    def reference(self) -> dict[str, str]:
        """As an autoscaler names it."""
        return {"apiVersion": self.api_version, "kind": self.kind, "name": self.name}


class TargetKind:
    """A deployment of one kind on the bus. ``defined``: whether its kinds come from CustomResourceDefinitions."""

    def __init__(self, name: str, server: ApiServer) -> None:
        self.name, self.server = name, server
        self.defined = True
        self.fewest = 0
        """Replicas below which the connector must not go."""
        self.pools: dict[str, ScaledPool] = {}
        self.settings: dict[str, Any] = {}
        self.number = -1
        self.counts = dict.fromkeys(POOLS, 1)
        self.site: ConnectorSite

    async def define(self) -> None:
        """The definitions, where there are any."""
        raise NotImplementedError

    async def make(self) -> None:
        """The objects, each pool with one replica."""
        raise NotImplementedError

    def running(self) -> Any:
        """Its controller, in a block."""
        raise NotImplementedError

    async def change(self, what: str, *, held: bool) -> None:
        """Begin a ``rollout`` or a ``restart`` of decode that does not come further while ``held``; end it."""
        raise NotImplementedError

    async def decide(self, **counts: int) -> int:
        """Publish the next decision; its number. Pools that are not named keep their counts."""
        self.number += 1
        self.counts |= counts
        await self.site.decide(self.number, **self.counts)
        return self.number

    async def decided(self, **counts: int) -> None:
        """Publish the next decision and wait until it is applied."""
        await self.site.done(await self.decide(**counts))


class GraphKind(TargetKind):
    """A graph: by its name in the newer version, by its adapters as targets in the older one."""

    def __init__(self, name: str, server: ApiServer) -> None:
        super().__init__(name, server)
        version = GRAPH_VERSIONS[name]
        # The operator's components are PodCliques of Grove.
        self.fewest = 1
        graph = f"{server.mark}-{version}"
        operator = self.operator = GraphOperator(server, graph, {"Prefill": 1, "Decode": 1}, version)
        for component in operator.components:
            adapter = operator.adapter_name(component)
            self.pools[component.lower()] = ScaledPool(
                server,
                f"{ADAPTERS}.{version}.{GROUP}/{adapter}",
                operator.path(ADAPTERS, adapter),
                f"{GROUP}/{version}",
                "DynamoGraphDeploymentScalingAdapter",
                adapter,
                lambda fate, component=component: operator.set_fate(component, fate),  # type: ignore[misc]
                lambda count, component=component: operator.make_adapter(component, count),  # type: ignore[misc]
            )
        targets = {pool: one.target for pool, one in self.pools.items()}
        self.settings = {"graph": graph} if version == "v1beta1" else {"targets": targets}

    async def define(self) -> None:
        await define_graphs(self.server)

    async def make(self) -> None:
        await self.operator.install()

    def running(self) -> Any:
        return self.operator.running()

    async def change(self, what: str, *, held: bool) -> None:
        if what == "restart":
            phase = "Restarting" if held else "Completed"
            self.operator.report(restart={"observedID": "r1", "phase": phase})
        else:
            self.operator.report(rolling_update={"phase": "InProgress" if held else "Completed"})

        async def shown() -> bool:
            graph = await self.server.api.get(self.operator.path(GRAPHS, self.operator.graph))
            return bool((graph.get("status") or {}).get("restart" if what == "restart" else "rollingUpdate"))

        await until(shown, f"the {what} in the graph's status")


class WorkloadsKind(TargetKind):
    """Two objects of one kind of workload."""

    def __init__(self, name: str, server: ApiServer) -> None:
        super().__init__(name, server)
        kind = self.kind = WORKLOADS[name]
        self.defined = kind.defined
        self.fewest = int(kind == SCALING_GROUP)
        self.workloads = {pool: Workload(server, kind, f"{server.mark}-{name}-{pool}") for pool in POOLS}
        operator = self.operator = WorkloadOperator(server, self.workloads.values())
        for pool, workload in self.workloads.items():
            self.pools[pool] = ScaledPool(
                server,
                f"{kind.resource}.{kind.version}.{kind.group}/{workload.name}",
                workload.path(),
                f"{kind.group}/{kind.version}",
                kind.kind,
                workload.name,
                lambda fate, workload=workload: operator.set_fate(workload, fate),  # type: ignore[misc]
                workload.make,
            )
        self.settings = {"targets": {pool: one.target for pool, one in self.pools.items()}}

    async def define(self) -> None:
        if self.kind.defined:
            await self.server.define(self.kind.group, self.kind.resource, self.kind.kind, self.kind.version)

    async def make(self) -> None:
        await self.server.allow_pods()
        for workload in self.workloads.values():
            await workload.make()

    def running(self) -> Any:
        return self.operator.running()

    async def change(self, what: str, *, held: bool) -> None:
        decode = self.workloads["decode"]
        self.operator.set_fate(decode, Fate(rolling=held))
        if held:
            await decode.change_template(f"of-{what}")

            async def shown() -> bool:
                status = (await self.server.api.get(decode.path())).get("status") or {}
                return bool(status.get("updatedReplicas", 0) < status.get("replicas", 0))

            await until(shown, f"the {what} in the workload's status")


def all_kinds(server: ApiServer) -> list[TargetKind]:
    """One of each."""
    graphs: list[TargetKind] = [GraphKind(name, server) for name in GRAPH_VERSIONS]
    return [*graphs, *(WorkloadsKind(name, server) for name in WORKLOADS)]


def rules_of(kinds: list[TargetKind]) -> list[Rule]:
    """The rights that a connector for these needs."""
    rules = [*GENERAL, ("keda.sh", "scaledobjects", READ)]
    if any(isinstance(one, GraphKind) for one in kinds):
        rules += [(GROUP, f"{ADAPTERS},{GRAPHS}", READ), (GROUP, f"{ADAPTERS}/scale", "patch")]
    found: set[WorkloadKind] = {one.kind for one in kinds if isinstance(one, WorkloadsKind)}
    for kind in found:
        rules += [(kind.group, kind.resource, READ), (kind.group, f"{kind.resource}/scale", "patch")]
    return rules


@asynccontextmanager
async def running(kinds: list[TargetKind]) -> AsyncIterator[None]:
    """All of their controllers."""
    async with AsyncExitStack() as stack:
        for kind in kinds:
            await stack.enter_async_context(kind.running())
        yield


async def is_served(server: ApiServer, path: str) -> bool:
    """Whether the server knows a collection."""
    try:
        await server.api.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True
