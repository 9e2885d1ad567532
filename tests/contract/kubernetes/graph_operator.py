"""A small operator for tests: adapter to graph to pods with statuses. Speaks only the API, to a double or a real one.

Behaves as Dynamo's operator does where a connector notices: an adapter's status is an echo of its spec, the graph takes
the count over, pods come and go, and the graph's status counts them. Tests set how pods fare. It plays the scheduler
and the kubelet for its own pods too, because the server under test has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.adapters.kubernetes.api import ApiError
from agent.adapters.kubernetes.list_watch import ListWatch, WatchTiming
from tests.contract.kubernetes.api_server import ApiServer, merge

GROUP, ADAPTERS, GRAPHS = "nvidia.com", "dynamographdeploymentscalingadapters", "dynamographdeployments"
GRAPH_LABEL, COMPONENT_LABEL = "nvidia.com/dynamo-graph-deployment-name", "nvidia.com/dynamo-component"
NODE = "no-such-node"
FAST = WatchTiming(watch_s=60, silence_s=30.0, first_pause_s=0.05, longest_pause_s=0.5)
Item = dict[str, Any]


@dataclass
class Fate:
    """How pods of one component fare from now on. ``lagging``: the graph does not take over the adapter's count."""

    unschedulable: str = ""
    crashing: str = ""
    starting: bool = False
    """New pods stay without being ready."""
    lagging: bool = False
    staying: bool = False
    """Pods that are deleted stay as terminating."""
    unready: bool = False
    """No pod becomes ready, and none that is ready is touched."""


@dataclass
class GraphOperator:
    """Runs one graph; its components are given with their first counts."""

    server: ApiServer
    graph: str
    components: dict[str, int]
    fates: dict[str, Fate] = field(default_factory=dict)
    restart: Item = field(default_factory=dict)
    rolling_update: Item = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _number: int = 0

    def adapter_name(self, component: str) -> str:
        """The adapter of a component."""
        return f"{self.graph}-{component.lower()}"

    def path(self, resource: str, name: str = "", sub: str = "") -> str:
        """A path in the version that Dynamo's planner speaks."""
        return self.server.path(GROUP, "v1beta1", resource, name, sub)

    async def install(self) -> None:
        """The definitions, the graph and its adapters."""
        await self.server.define(GROUP, ADAPTERS, "DynamoGraphDeploymentScalingAdapter", "v1alpha1", "v1beta1")
        await self.server.define(GROUP, GRAPHS, "DynamoGraphDeployment", "v1beta1", "v1alpha1", scale=False)
        await self.server.allow_pods()
        listed = [
            {"name": name, "type": name.lower(), "replicas": count, "scalingAdapter": {}}
            for name, count in self.components.items()
        ]
        body = _object("DynamoGraphDeployment", self.graph, {"components": listed})
        await self.server.make(self.path(GRAPHS), body)
        for name, count in self.components.items():
            spec = {"replicas": count, "dgdRef": {"name": self.graph, "componentName": name}}
            labels = {GRAPH_LABEL: self.graph, COMPONENT_LABEL: name}
            adapter = _object("DynamoGraphDeploymentScalingAdapter", self.adapter_name(name), spec, labels)
            await self.server.make(self.path(ADAPTERS), adapter, manager="dynamo-operator")
            self.fates[name] = Fate()

    def set_fate(self, component: str, fate: Fate) -> None:
        """How the component's pods fare from now on."""
        self.fates[component] = fate
        self._changed.set()

    def report(self, *, restart: Item | None = None, rolling_update: Item | None = None) -> None:
        """What the graph's status says of a restart or a rolling update from now on; None: nothing any more."""
        self.restart, self.rolling_update = restart or {}, rolling_update or {}
        self._changed.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reconcile at each change of adapters, graph or pods, until the block ends. Then the pods are deleted."""
        pods = self.server.path("", "v1", "pods")
        selector = {"labelSelector": f"{GRAPH_LABEL}={self.graph}"}
        watches = [
            ListWatch(self.server.api, self.path(ADAPTERS), dict, selector=selector, timing=FAST),
            ListWatch(self.server.api, self.path(GRAPHS), dict, timing=FAST),
            ListWatch(self.server.api, pods, dict, selector=selector, timing=FAST),
        ]
        for watch in watches:
            watch.on_change(self._changed.set)
        tasks = [asyncio.create_task(watch.run()) for watch in watches]
        tasks.append(asyncio.create_task(self._run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for pod in await self.pods():
                await self._remove(pod)
        for error in ended:
            if isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError):
                raise error

    async def pods(self, component: str = "") -> list[Item]:
        """The pods of the graph or of one component, as the server has them."""
        selector = f"{GRAPH_LABEL}={self.graph}" + (f",{COMPONENT_LABEL}={component}" if component else "")
        found = await self.server.api.get(self.server.path("", "v1", "pods"), {"labelSelector": selector})
        items: list[Item] = found["items"]
        return items

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                for name in self.components:
                    await self._reconcile(name)
                await self._count()
            except ApiError as error:
                # A conflict, or a server that is away: the next try reads everything anew.
                if error.status not in (0, 404, 409, 429, 500, 503):
                    raise
                self._changed.set()
                await asyncio.sleep(0.05)
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
        await self._scale_pods(name, fate)

    async def _take_over(self, name: str, asked: int) -> None:
        graph = await self.server.api.get(self.path(GRAPHS, self.graph))
        listed = graph["spec"]["components"]
        if all(one["name"] != name or one["replicas"] == asked for one in listed):
            return
        changed = [one | ({"replicas": asked} if one["name"] == name else {}) for one in listed]
        body = {
            "metadata": {"resourceVersion": graph["metadata"]["resourceVersion"]},
            "spec": {"components": changed},
        }
        await merge(self.server.api, self.path(GRAPHS, self.graph), body, manager="dynamo-operator")

    async def _scale_pods(self, name: str, fate: Fate) -> None:
        graph = await self.server.api.get(self.path(GRAPHS, self.graph))
        target = next(one["replicas"] for one in graph["spec"]["components"] if one["name"] == name)
        found = await self.pods(name)
        live = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        # Those that do not serve go first.
        live.sort(key=_ready, reverse=True)
        for pod in live[target:]:
            await self._delete(pod)
        for _ in range(target - len(live)):
            await self._create(name)
        for pod in await self.pods(name):
            if "deletionTimestamp" not in pod["metadata"]:
                await self._settle(pod, fate)
            elif not fate.staying:
                await self._remove(pod)

    async def _create(self, name: str) -> None:
        self._number += 1
        labels = {GRAPH_LABEL: self.graph, COMPONENT_LABEL: name}
        fate = self.fates[name]
        spec: Item = {"containers": [{"name": "main", "image": "none"}], "automountServiceAccountToken": False}
        if not fate.unschedulable:
            spec["nodeName"] = NODE
        pod = f"{self.adapter_name(name)}-{self._number}"
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": labels}, "spec": spec}
        await self.server.api.post(self.server.path("", "v1", "pods"), body)

    async def _settle(self, pod: Item, fate: Fate) -> None:
        """The status that scheduler and kubelet would write."""
        if fate.unready:
            return
        if "nodeName" not in pod["spec"]:
            if not fate.unschedulable:
                # A scheduler would bind it; here a new pod takes its place.
                await self._delete(pod)
                return
            refused = _condition("PodScheduled", "False", "Unschedulable", fate.unschedulable)
            await self._write_status(pod, {"phase": "Pending", "conditions": [refused]})
            return
        ready = not fate.crashing and not (fate.starting and not _ready(pod))
        conditions = [_condition("PodScheduled", "True"), _condition("Ready", "True" if ready else "False")]
        state = {"waiting": {"reason": fate.crashing}} if fate.crashing else {"running": {}}
        container = {
            "name": "main",
            "image": "none",
            "imageID": "",
            "ready": ready,
            "restartCount": 3 if fate.crashing else 0,
            "state": state,
        }
        await self._write_status(pod, {"phase": "Running", "conditions": conditions, "containerStatuses": [container]})

    async def _write_status(self, pod: Item, status: Item) -> None:
        if _signs(pod.get("status") or {}) == _signs(status):
            return
        path = self.server.path("", "v1", "pods", pod["metadata"]["name"], "status")
        await merge(self.server.api, path, {"status": status})

    async def _delete(self, pod: Item) -> None:
        with suppress_missing():
            await self.server.api.send("DELETE", self.server.path("", "v1", "pods", pod["metadata"]["name"]))

    async def _remove(self, pod: Item) -> None:
        path = self.server.path("", "v1", "pods", pod["metadata"]["name"])
        with suppress_missing():
            await self.server.api.send("DELETE", path, query={"gracePeriodSeconds": "0"})

    async def _count(self) -> None:
        """The graph's status from its pods."""
        graph = await self.server.api.get(self.path(GRAPHS, self.graph))
        pods = await self.pods()
        counts, whole = {}, True
        for one in graph["spec"]["components"]:
            own = [pod for pod in pods if pod["metadata"]["labels"][COMPONENT_LABEL] == one["name"]]
            ready = sum(1 for pod in own if _ready(pod) and "deletionTimestamp" not in pod["metadata"])
            whole = whole and ready == one["replicas"]
            counts[one["name"]] = {
                "componentKind": "PodClique",
                "replicas": len(own),
                "updatedReplicas": len(own),
                "readyReplicas": ready,
            }
        reason = "all_resources_are_ready" if whole else "pods_not_ready"
        old = graph.get("status") or {}
        conditions = [_condition("Ready", "True" if whole else "False", reason)]
        status: Item = {
            "state": "successful" if whole else "pending",
            "observedGeneration": graph["metadata"]["generation"],
            "components": counts,
            "conditions": conditions,
            "restart": self.restart or None,
            "rollingUpdate": self.rolling_update or None,
        }
        if _signs(old) != _signs({key: value for key, value in status.items() if value is not None}):
            await merge(self.server.api, self.path(GRAPHS, self.graph, "status"), {"status": status})


@asynccontextmanager
async def operated(server: ApiServer, **components: int) -> AsyncIterator[GraphOperator]:
    """A graph of these components, installed and run."""
    operator = GraphOperator(server, f"{server.mark}-g", components)
    await operator.install()
    async with operator.running():
        yield operator


class suppress_missing(suppress):  # noqa: N801 - reads as the standard library's own
    """Passes over an object that is gone already."""

    def __init__(self) -> None:
        super().__init__(ApiError)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return isinstance(error, ApiError) and error.status == 404


def _object(kind: str, name: str, spec: Item, labels: dict[str, str] | None = None) -> Item:
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": f"{GROUP}/v1beta1", "kind": kind, "metadata": metadata, "spec": spec}


def _condition(kind: str, status: str, reason: str = "", message: str = "") -> Item:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    more = {"reason": reason, "message": message} if reason else {}
    return {"type": kind, "status": status, "lastTransitionTime": now, **more}


def _ready(pod: Item) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _signs(status: Item) -> Any:
    """A status without times, to see whether a write is needed: a later time alone is no change."""
    if isinstance(status, dict):
        return {
            key: _signs(value)
            for key, value in status.items()
            if key in SHOWN or (key not in HIDDEN and isinstance(value, (dict, str, int)))
        }
    if isinstance(status, list):
        return [_signs(one) for one in status]
    return status


SHOWN = ("conditions", "containerStatuses")
HIDDEN = ("lastTransitionTime", "qosClass", "startTime")
