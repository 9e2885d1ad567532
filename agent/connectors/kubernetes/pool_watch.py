"""The pools of one deployment as the shared watches show them. What was never listed is unknown, and not acted on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.connectors.kubernetes.keyed_watch import Wake
from agent.connectors.kubernetes.node_telemetry import NodeTelemetryWatch
from agent.connectors.kubernetes.shared_watches import SharedWatches, WatchedPools
from agent.core.scaling.kubernetes.gpu_release import SETTLE_S, LeftPod, PodPlace, PoolGpus, release
from agent.core.scaling.kubernetes.lean_objects import WatchedGraph, graph_key, label_key
from agent.core.scaling.kubernetes.needed_rights import GRAPHS
from agent.core.scaling.kubernetes.pool_views import Counted, ViewSettings, graph_component, pool_seen, workload
from agent.core.scaling.kubernetes.power_limits import PoolPods
from agent.core.scaling.kubernetes.rival_scalers import rival
from agent.core.scaling.kubernetes.scale_targets import (
    ADAPTER_GROUP,
    ADAPTERS,
    COMPONENT_LABEL,
    GRAPH_LABEL,
    AdapterReference,
    ScaleTarget,
    kind_of,
    pod_labels,
    reference_of,
)
from agent.core.scaling.kubernetes.workload_pods import WorkerPod, of_labels
from agent.core.scaling.scaling_types import PoolSeen, ScalingProblem


class PoolWatch:
    """The view of one deployment; ``wake`` is called when something in it changes."""

    def __init__(
        self,
        shared: SharedWatches,
        telemetry: NodeTelemetryWatch,
        watched: WatchedPools,
        settings: ViewSettings,
        wake: Wake,
    ) -> None:
        self._shared, self.watched, self._settings, self._wake = shared, watched, settings, wake
        self._telemetry = telemetry
        self._present: dict[str, dict[PodPlace, WorkerPod]] = {}
        """By pool, the pods that were seen last."""
        self._left: dict[str, dict[PodPlace, LeftPod]] = {}
        self._lost: dict[str, frozenset[str]] = {}
        """By pool, nodes of pods that left in the course of this decision, and that do not report any more."""
        self._needed = shared.needed_by(watched)
        shared.join(watched, wake)

    @property
    def unknown(self) -> str:
        """Why the cluster is not known now; empty where it is. A lost connection is named once, not for each watch."""
        missing = [f"{name}: {one.unknown}" for name, one in self._needed.items() if one.unknown and not one.listed]
        if missing:
            return "; ".join(missing)
        lost = [one.unknown for one in self._needed.values() if one.unknown]
        return lost[0] if lost else ""

    def targets(self) -> dict[str, ScaleTarget]:
        """The target of each pool."""
        watched = self.watched
        if not watched.graph:
            return dict(watched.targets)
        found = {}
        adapters = self._shared.targets(watched.namespace, ADAPTER_GROUP, ADAPTERS)
        for item in adapters.find(graph_key(watched.graph), self._wake):
            reference = reference_of(item)
            if reference is not None and reference.graph == watched.graph:
                found[reference.component.lower()] = ScaleTarget(
                    ADAPTER_GROUP, adapters.collection.version, ADAPTERS, watched.namespace, item["metadata"]["name"]
                )
        return found

    def item(self, target: ScaleTarget) -> dict[str, Any] | None:
        """The object of a target; None where there is none."""
        version = "" if self.watched.graph else target.version
        collection = self._shared.targets(target.namespace, target.group, target.resource, version)
        found = [one for one in collection.find(target.name, self._wake) if one["metadata"]["name"] == target.name]
        return found[0] if found else None

    def seen(self, raised_s: Mapping[str, float], *, resumed: bool = False) -> dict[str, PoolSeen]:
        """Each pool now. One whose object is missing has no count, and says so.

        ``raised_s``: by pool, when this process last raised it, in seconds since the epoch. ``resumed``: pods may have
        left before this process began.
        """
        return {
            pool: self._seen(pool, target, raised_s.get(pool, 0.0), resumed=resumed)
            for pool, target in self.targets().items()
        }

    def _seen(self, pool: str, target: ScaleTarget, raised_s: float, *, resumed: bool) -> PoolSeen:
        item = self.item(target)
        if item is None:
            return PoolSeen(None, 0, None, problem=ScalingProblem(f"{pool}: there is no {target}"))
        in_the_way, counted, pods = self._workers(item, target)
        autoscalers = self._shared.autoscalers(target.namespace).find(target.name, self._wake)
        scaled = self._shared.scaled_objects(target.namespace).find(target.name, self._wake)
        other = rival(target, kind_of(target, item), autoscalers, scaled)
        idle = self._gpus_idle(pool, target, pods)
        seen = pool_seen(
            pool,
            item,
            counted,
            pods,
            time.time(),
            rival=other,
            gpus_idle=idle is not False,
            raised_s=raised_s,
            settings=self._settings,
        )
        # Held is held; that nothing is held any more, each node has to report once after this process began.
        known = idle is False or (idle is True and not (resumed and self._telemetry.age_s < SETTLE_S))
        if not seen.leaving and not (known and not counted.hold and counted.pods_known):
            # Pods are gone, but whether their GPUs are idle is not known; in a rollout an earlier generation may go on.
            seen = replace(seen, leaving=None)
        if in_the_way:
            return replace(seen, wanted=None, problem=ScalingProblem(f"{pool}: {in_the_way}"))
        return seen

    def graphs(self) -> dict[ScaleTarget, WatchedGraph | None]:
        """The graphs of this deployment's pools; None for one that is not there."""
        watched = self.watched
        names = {(watched.graph, "")} if watched.graph else set()
        for target in watched.targets.values():
            item = self.item(target) if target.is_adapter else None
            reference = reference_of(item) if item is not None else None
            if reference is not None:
                names.add((reference.graph, target.version))
        found: dict[ScaleTarget, WatchedGraph | None] = {}
        for name, version in sorted(names):
            graphs = self._shared.graphs(watched.namespace, version)
            place = ScaleTarget(ADAPTER_GROUP, graphs.collection.version, GRAPHS, watched.namespace, name)
            found[place] = next(iter(graphs.find(name, self._wake)), None)
        return found

    def workers(self) -> dict[str, PoolPods]:
        """The pods of each pool that nothing stands in the way of."""
        found = {}
        for pool, target in self.targets().items():
            item = self.item(target)
            in_the_way, counted, pods = self._workers(item, target) if item is not None else ("missing", None, ())
            if counted is not None and not in_the_way:
                found[pool] = PoolPods(pods, counted.hold)
        return found

    def forget_lost(self) -> None:
        """Judge the next decision by the nodes that report: what a lost node held is not known again by waiting."""
        self._lost.clear()

    def _gpus_idle(self, pool: str, target: ScaleTarget, pods: Sequence[WorkerPod]) -> bool | None:
        """Whether the GPUs of pods that left are idle; None: not known."""
        now_s = time.monotonic()
        present = {PodPlace(one.name, one.node): one for one in pods}
        left = self._left.setdefault(pool, {})
        for place, pod in self._present.get(pool, {}).items():
            if place not in present:
                left[place] = LeftPod(now_s, pod.may_hold_gpus)
        self._present[pool] = present
        graph = self.watched.graph
        own = PoolGpus(target.namespace, {one.name: one.node for one in pods}, graph, pool if graph else "")
        found = release(own, left, self._telemetry.nodes, now_s)
        self._left[pool] = dict(found.waiting)
        self._telemetry.want(found.nodes, self._wake)
        self._lost[pool] = self._lost.get(pool, frozenset()) | found.lost
        return None if found.idle and self._lost[pool] else found.idle

    def _workers(self, item: dict[str, Any], target: ScaleTarget) -> tuple[str, Counted, Sequence[WorkerPod]]:
        """What stands in the way of all scaling, the count by its controller, and the pods."""
        reference = reference_of(item) if target.is_adapter else None
        if reference is not None:
            return self._component(reference, target)
        labels = pod_labels(target, item)
        counted = workload(item, kind_of(target, item))
        if not labels:
            # Pods are not known, and its controller alone counts.
            return "", replace(counted, gang=True, pods_known=False), ()
        return "", counted, self._labelled(target.namespace, labels)

    def _component(self, reference: AdapterReference, target: ScaleTarget) -> tuple[str, Counted, Sequence[WorkerPod]]:
        pods = [
            one
            for one in self._labelled(target.namespace, {GRAPH_LABEL: reference.graph})
            if one.labels.get(COMPONENT_LABEL, "").lower() == reference.component.lower()
        ]
        version = "" if self.watched.graph else target.version
        for graph in self._shared.graphs(target.namespace, version).find(reference.graph, self._wake):
            return graph.in_the_way, graph_component(graph.item, reference.component), pods
        return f"there is no graph {reference.graph}", Counted(0, observed=False), pods

    def _labelled(self, namespace: str, labels: dict[str, str]) -> tuple[WorkerPod, ...]:
        watch = self._shared.pods(namespace)
        # The rarest label gives the shortest list.
        lists = [watch.find(label_key(*pair), self._wake) for pair in labels.items()]
        return of_labels(min(lists, key=len), labels)
