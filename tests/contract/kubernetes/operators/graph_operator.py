"""A small operator for tests: adapter to graph to pods with statuses. Speaks only the API, to a double or a real one.

Behaves as Dynamo's operator does where a connector notices: an adapter's status is an echo of its spec, the graph takes
the count over, pods come and go, and the graph's status counts them. Tests set how pods fare. It plays the scheduler
and the kubelet for its own pods too, because the server under test has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from agent.adapters.kubernetes.api import ApiError
from tests.contract.kubernetes.api_server import ApiServer, merge
from tests.contract.kubernetes.operators.operated_pods import Fate, Item, OperatedPods, condition, signs
from tests.contract.kubernetes.operators.reconciling import again_after, reconciling, watched

GROUP, ADAPTERS, GRAPHS = "nvidia.com", "dynamographdeploymentscalingadapters", "dynamographdeployments"
GRAPH_LABEL, COMPONENT_LABEL = "nvidia.com/dynamo-graph-deployment-name", "nvidia.com/dynamo-component"


@dataclass
class GraphOperator:
    """Runs one graph; its components are given with their first counts. ``version``: of its objects."""

    server: ApiServer
    graph: str
    components: dict[str, int]
    version: str = "v1beta1"
    fates: dict[str, Fate] = field(default_factory=dict)
    restart: Item = field(default_factory=dict)
    rolling_update: Item = field(default_factory=dict)
    _to_restart: list[list[str]] = field(default_factory=list)
    """Groups of components that restart one after another."""
    _pods: dict[str, OperatedPods] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def adapter_name(self, component: str) -> str:
        """The adapter of a component."""
        return f"{self.graph}-{component.lower()}"

    def path(self, resource: str, name: str = "", sub: str = "") -> str:
        """A path in the graph's version."""
        return self.server.path(GROUP, self.version, resource, name, sub)

    async def install(self) -> None:
        """The definitions, the graph and its adapters."""
        await define_graphs(self.server)
        await self.server.allow_pods()
        await self.server.make(self.path(GRAPHS), self._object("DynamoGraphDeployment", self.graph, self._spec()))
        for name, count in self.components.items():
            self.fates[name] = Fate()
            self._pods[name] = OperatedPods(self.server, self.adapter_name(name), self._labels(name))
            await self.make_adapter(name, count)

    async def make_adapter(self, component: str, count: int) -> None:
        """A component's scaling adapter with a count."""
        reference = "componentName" if self.version == "v1beta1" else "serviceName"
        spec = {"replicas": count, "dgdRef": {"name": self.graph, reference: component}}
        kind, name = "DynamoGraphDeploymentScalingAdapter", self.adapter_name(component)
        adapter = self._object(kind, name, spec, self._labels(component))
        await self.server.make(self.path(ADAPTERS), adapter, manager="dynamo-operator")

    def _labels(self, component: str) -> dict[str, str]:
        return {GRAPH_LABEL: self.graph, COMPONENT_LABEL: component}

    def _object(self, kind: str, name: str, spec: Item, labels: dict[str, str] | None = None) -> Item:
        metadata = {"name": name, "labels": labels or {}}
        return {"apiVersion": f"{GROUP}/{self.version}", "kind": kind, "metadata": metadata, "spec": spec}

    def _spec(self) -> Item:
        """The components as a list, or as the older version has them, a mapping."""
        if self.version == "v1beta1":
            listed = [
                {"name": name, "type": name.lower(), "replicas": count, "scalingAdapter": {}}
                for name, count in self.components.items()
            ]
            return {"components": listed}
        services = {
            name: {"componentType": name.lower(), "replicas": count, "scalingAdapter": {"enabled": True}}
            for name, count in self.components.items()
        }
        return {"services": services}

    def set_fate(self, component: str, fate: Fate) -> None:
        """How the component's pods fare from now on."""
        self.fates[component] = fate
        self._changed.set()

    def report(self, *, restart: Item | None = None, rolling_update: Item | None = None) -> None:
        """What the graph's status says of a restart or a rolling update from now on; None: nothing any more."""
        self.restart, self.rolling_update = restart or {}, rolling_update or {}
        self._changed.set()

    def running(self) -> AbstractAsyncContextManager[None]:
        """Reconcile at each change of adapters, graph or pods, until the block ends. Then the pods are deleted."""
        selector = {"labelSelector": f"{GRAPH_LABEL}={self.graph}"}
        watches = [
            watched(self.server, self.path(ADAPTERS), selector),
            watched(self.server, self.path(GRAPHS)),
            watched(self.server, self.server.path("", "v1", "pods"), selector),
        ]
        for watch in watches:
            watch.on_change(self._changed.set)
        return reconciling(watches, self._run(), self._pods.values())

    async def pods(self, component: str) -> list[Item]:
        """All pods of a component, terminating ones too."""
        return await self._pods[component].pods()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                for name in self.components:
                    await self._reconcile(name)
                await self._restart()
                await self._count()
            except ApiError as error:
                await again_after(error)
                self._changed.set()
            await self._changed.wait()

    async def _reconcile(self, name: str) -> None:
        adapter = await self.server.api.get(self.path(ADAPTERS, self.adapter_name(name)))
        asked = adapter["spec"]["replicas"]
        echo = {"replicas": asked, "selector": f"{GRAPH_LABEL}={self.graph},{COMPONENT_LABEL}={name}"}
        if adapter.get("status") != echo:
            await merge(self.server.api, self.path(ADAPTERS, self.adapter_name(name), "status"), {"status": echo})
        fate = self.fates[name]
        if not fate.lagging:
            await self._take_over(name, asked)
        graph = await self.server.api.get(self.path(GRAPHS, self.graph))
        await self._pods[name].scale(_counts(graph)[name], fate)

    async def _take_over(self, name: str, asked: int) -> None:
        graph = await self.server.api.get(self.path(GRAPHS, self.graph))
        if _counts(graph).get(name, asked) == asked:
            return
        if self.version == "v1beta1":
            listed = graph["spec"]["components"]
            changed: Item = {
                "components": [one | ({"replicas": asked} if one["name"] == name else {}) for one in listed]
            }
        else:
            changed = {"services": {name: {"replicas": asked}}}
        body = {"metadata": {"resourceVersion": graph["metadata"]["resourceVersion"]}, "spec": changed}
        await merge(self.server.api, self.path(GRAPHS, self.graph), body, manager="dynamo-operator")

    async def _restart(self) -> None:
        """One step of a restart that ``spec.restart`` asks for: new pods for one component after another."""
        graph = await self.server.api.get(self.path(GRAPHS, self.graph))
        asked = graph["spec"].get("restart") or {}
        if not asked.get("id"):
            return
        if self.restart.get("observedID") != asked["id"]:
            strategy = asked.get("strategy") or {}
            names = strategy.get("order") or list(self.components)
            self._to_restart = [names] if strategy.get("type") == "Parallel" else [[name] for name in names]
            self.restart = {"observedID": asked["id"], "phase": "Restarting", "inProgress": self._to_restart[0]}
        counts = _counts(graph)
        while self._to_restart:
            for name in self._to_restart[0]:
                self._pods[name].revision = asked["id"]
                await self._pods[name].scale(counts[name], self.fates[name])
            if not all([await self._is_new(name, counts[name]) for name in self._to_restart[0]]):
                break
            self._to_restart.pop(0)
            now = self._to_restart[0] if self._to_restart else []
            self.restart |= {"inProgress": now, "phase": "Restarting" if now else "Completed"}
            # Each phase is shown before the next one begins.
            await self._count()

    async def _is_new(self, name: str, count: int) -> bool:
        pods = await self._pods[name].pods()
        return self._pods[name].updated_of(pods) == count and self._pods[name].ready_of(pods) == count == len(pods)

    async def _count(self) -> None:
        """The graph's status from its pods."""
        graph = await self.server.api.get(self.path(GRAPHS, self.graph))
        counts, whole = {}, True
        for name, wanted in _counts(graph).items():
            if name not in self._pods:
                continue
            own = await self._pods[name].pods()
            ready = self._pods[name].ready_of(own)
            whole = whole and ready == wanted
            counts[name] = {
                "componentKind": "PodClique",
                "replicas": len(own),
                "updatedReplicas": len(own),
                "readyReplicas": ready,
            }
        reason = "all_resources_are_ready" if whole else "pods_not_ready"
        old = graph.get("status") or {}
        conditions = [condition("Ready", "True" if whole else "False", reason)]
        status: Item = {
            "state": "successful" if whole else "pending",
            "observedGeneration": graph["metadata"]["generation"],
            "components" if self.version == "v1beta1" else "services": counts,
            "conditions": conditions,
            "restart": self.restart or None,
            "rollingUpdate": self.rolling_update or None,
        }
        if signs(old) != signs({key: value for key, value in status.items() if value is not None}):
            await merge(self.server.api, self.path(GRAPHS, self.graph, "status"), {"status": status})


async def define_graphs(server: ApiServer) -> None:
    """The definitions of both of Dynamo's kinds."""
    await server.define(GROUP, ADAPTERS, "DynamoGraphDeploymentScalingAdapter", "v1alpha1", "v1beta1")
    await server.define(GROUP, GRAPHS, "DynamoGraphDeployment", "v1beta1", "v1alpha1", scale=False)


@asynccontextmanager
async def operated(
    server: ApiServer, *, name: str = "g", version: str = "v1beta1", **components: int
) -> AsyncIterator[GraphOperator]:
    """A graph of these components, installed and run."""
    operator = GraphOperator(server, f"{server.mark}-{name}", components, version)
    await operator.install()
    async with operator.running():
        yield operator


def _counts(graph: Item) -> dict[str, int]:
    spec = graph["spec"]
    listed = {one["name"]: one["replicas"] for one in spec.get("components") or ()}
    return listed | {name: one["replicas"] for name, one in (spec.get("services") or {}).items()}
