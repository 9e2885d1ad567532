"""What a connector sees in its namespace, kept current: targets, graph, pods, and autoscalers.

One watch for each collection. What was never listed is unknown, and a pool that is unknown is not acted on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.adapters.kubernetes.list_watch import ListWatch, ReadableApi, WatchTiming
from agent.core.scaling.kubernetes.pool_views import Counted, ViewSettings, graph_component, pool_seen, workload
from agent.core.scaling.kubernetes.rival_scalers import planner_in_the_way, rival
from agent.core.scaling.kubernetes.scale_targets import (
    ADAPTER_GROUP,
    ADAPTERS,
    ScaleTarget,
    kind_of,
    pod_labels,
    reference_of,
)
from agent.core.scaling.kubernetes.workload_pods import WorkerPod, of_labels, worker_pod
from agent.core.scaling.scaling_types import PoolSeen, ScalingProblem

GRAPHS = "dynamographdeployments"
GRAPH_LABEL, COMPONENT_LABEL = "nvidia.com/dynamo-graph-deployment-name", "nvidia.com/dynamo-component"
TIMING = WatchTiming(watch_s=290, silence_s=100.0, first_pause_s=0.2, longest_pause_s=10.0)


@dataclass(frozen=True, slots=True)
class WatchedPools:
    """What is watched. ``version``: of Dynamo's kinds, where ``graph`` is set. ``keda``: ScaledObjects are served."""

    namespace: str
    graph: str
    version: str
    targets: Mapping[str, ScaleTarget]
    keda: bool


def collection(group: str, version: str, namespace: str, resource: str) -> str:
    """The path of a namespaced collection."""
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    return f"{root}/namespaces/{namespace}/{resource}"


class PoolWatch:
    """The pools of one deployment. ``run`` the watches; ``changed`` is called at each change."""

    def __init__(
        self, api: ReadableApi, watched: WatchedPools, settings: ViewSettings, changed: Callable[[], None]
    ) -> None:
        self._watched, self._settings = watched, settings
        self.watches: dict[str, ListWatch[Any]] = {}

        def watch(group: str, version: str, resource: str, read: Callable[[Any], Any], label: str = "") -> None:
            path = collection(group, version, watched.namespace, resource)
            selector = {"labelSelector": label} if label else None
            one = ListWatch(api, path, read, selector=selector, timing=TIMING)
            one.on_change(changed)
            self.watches[f"{resource}.{group}"] = one

        for target in watched.targets.values():
            if f"{target.resource}.{target.group}" not in self.watches:
                watch(target.group, target.version, target.resource, dict)
        label = ""
        if watched.graph:
            label = f"{GRAPH_LABEL}={watched.graph}"
            watch(ADAPTER_GROUP, watched.version, ADAPTERS, dict)
            watch(ADAPTER_GROUP, watched.version, GRAPHS, dict)
        watch("", "v1", "pods", worker_pod, label)
        watch("autoscaling", "v2", "horizontalpodautoscalers", dict)
        if watched.keda:
            watch("keda.sh", "v1alpha1", "scaledobjects", dict)

    @property
    def unknown(self) -> str:
        """What was not listed yet, with the reason; empty where everything is known."""
        return "; ".join(
            f"{name}: {one.last_error or 'not listed yet'}" for name, one in self.watches.items() if one.items is None
        )

    def _items(self, name: str) -> list[Any]:
        watch = self.watches.get(name)
        return [] if watch is None else [*(watch.items or {}).values()]

    def targets(self) -> dict[str, ScaleTarget]:
        """The target of each pool."""
        if not self._watched.graph:
            return dict(self._watched.targets)
        found = {}
        for item in self._items(f"{ADAPTERS}.{ADAPTER_GROUP}"):
            reference = reference_of(item)
            if reference is not None and reference.graph == self._watched.graph:
                name = str(item["metadata"]["name"])
                found[reference.component.lower()] = ScaleTarget(
                    ADAPTER_GROUP, self._watched.version, ADAPTERS, self._watched.namespace, name
                )
        return found

    def item(self, target: ScaleTarget) -> dict[str, Any] | None:
        """The object of a target; None where there is none."""
        for one in self._items(f"{target.resource}.{target.group}"):
            if one["metadata"]["name"] == target.name:
                found: dict[str, Any] = one
                return found
        return None

    def seen(self) -> dict[str, PoolSeen]:
        """Each pool now. One whose object is missing has no count, and says so."""
        return {pool: self._seen(pool, target) for pool, target in self.targets().items()}

    def _seen(self, pool: str, target: ScaleTarget) -> PoolSeen:
        item = self.item(target)
        if item is None:
            return PoolSeen(None, 0, None, problem=ScalingProblem(f"{pool}: there is no {target}"))
        in_the_way, counted, pods = self._workers(item, target)
        autoscalers = self._items("horizontalpodautoscalers.autoscaling")
        scaled = self._items("scaledobjects.keda.sh")
        other = rival(target, kind_of(target, item), autoscalers, scaled)
        seen = pool_seen(pool, item, counted, pods, time.time(), rival=other, settings=self._settings)
        if not seen.leaving:
            # Pods are gone, but whether their GPUs are idle only telemetry knows: what left is not known to be drained.
            seen = replace(seen, leaving=None)
        if in_the_way:
            return replace(seen, wanted=None, problem=ScalingProblem(f"{pool}: {in_the_way}"))
        return seen

    def _workers(self, item: dict[str, Any], target: ScaleTarget) -> tuple[str, Counted, tuple[WorkerPod, ...]]:
        """What stands in the way of all scaling, the count by its controller, and the pods."""
        pods: list[WorkerPod] = self._items("pods.")
        reference = reference_of(item) if target.is_adapter else None
        if reference is None:
            labels = pod_labels(target, item)
            counted = workload(item, kind_of(target, item))
            # Without labels pods are not known, and its controller alone counts.
            return "", counted if labels else replace(counted, gang=True), of_labels(pods, labels)
        own = [one for one in pods if one.labels.get(COMPONENT_LABEL, "").lower() == reference.component.lower()]
        found = of_labels(own, {GRAPH_LABEL: reference.graph})
        for graph in self._items(f"{GRAPHS}.{ADAPTER_GROUP}"):
            if graph["metadata"]["name"] == reference.graph:
                return planner_in_the_way(graph), graph_component(graph, reference.component), found
        return f"there is no graph {reference.graph}", Counted(0, observed=False), found
