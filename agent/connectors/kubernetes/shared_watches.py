"""All watches of this process: one for each collection, shared by the deployments that need it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.connectors.kubernetes.keyed_watch import Collection, KeyedWatch, Wake, WatchableCluster
from agent.core.scaling.kubernetes.lean_objects import (
    WatchedGraph,
    autoscaler_keys,
    graph_keys,
    lean_graph,
    lean_target,
    pod_keys,
    target_keys,
)
from agent.core.scaling.kubernetes.needed_rights import GRAPHS, annotating, reporting, restarting, scaling, watching
from agent.core.scaling.kubernetes.scale_targets import ADAPTER_GROUP, ADAPTERS, GRAPH_LABEL, ScaleTarget
from agent.core.scaling.kubernetes.workload_pods import WorkerPod, worker_pod

ADAPTER_VERSIONS = ("v1beta1", "v1alpha1")
"""Those of Dynamo's kinds, the newer one first."""
PODS = ("", "pods")
AUTOSCALERS = ("autoscaling", "horizontalpodautoscalers")
SCALED_OBJECTS = ("keda.sh", "scaledobjects")


@dataclass(frozen=True, slots=True)
class WatchedPools:
    """The pools of one deployment: those of a ``graph``'s scaling adapters, or ``targets`` by pool."""

    deployment: str
    namespace: str
    graph: str
    targets: Mapping[str, ScaleTarget]

    @property
    def pods_are_graphs(self) -> bool:
        """Whether every pod of it carries a graph's label."""
        return bool(self.graph) or all(one.is_adapter for one in self.targets.values())


class SharedWatches:
    """Run all of ``watches``. Each gives its objects by key. ``annotate``: power limits are written to pods.

    ``restart``: graphs are restarted.
    """

    def __init__(
        self,
        cluster: WatchableCluster,
        watched: Sequence[WatchedPools],
        *,
        annotate: bool = False,
        restart: bool = False,
    ) -> None:
        self._cluster, self._annotate, self._restart = cluster, annotate, restart
        self.watches: dict[tuple[str, ...], KeyedWatch[Any]] = {}
        for namespace in sorted({one.namespace for one in watched}):
            here = [one for one in watched if one.namespace == namespace]
            self._watch(namespace, *PODS, ("v1",), worker_pod, pod_keys, selector=_pod_selector(here))
            self._watch(namespace, *AUTOSCALERS, ("v2",), lean_target, autoscaler_keys)
            self._watch(namespace, *SCALED_OBJECTS, ("v1alpha1",), lean_target, autoscaler_keys, optional=True)
            if any(one.graph for one in here):
                self._watch_adapters(namespace, "", ADAPTER_VERSIONS, [""])
            named: dict[tuple[str, str, str], list[str]] = {}
            for target in (target for one in here for target in one.targets.values()):
                named.setdefault((target.group, target.resource, target.version), []).append(target.name)
            for (group, resource, version), names in named.items():
                if (group, resource) == (ADAPTER_GROUP, ADAPTERS):
                    self._watch_adapters(namespace, version, (version,), names)
                else:
                    self._watch(namespace, group, resource, (version,), lean_target, target_keys, version, names)

    def _watch_adapters(self, namespace: str, wanted: str, versions: tuple[str, ...], names: Sequence[str]) -> None:
        self._watch(namespace, ADAPTER_GROUP, ADAPTERS, versions, lean_target, target_keys, wanted, names)
        self._watch(namespace, ADAPTER_GROUP, GRAPHS, versions, lean_graph, graph_keys, wanted)

    def _watch(
        self,
        namespace: str,
        group: str,
        resource: str,
        versions: tuple[str, ...],
        read: Callable[[Any], Any],
        keys: Callable[[Any], Iterable[str]],
        wanted: str = "",
        scaled: Sequence[str] = (),
        *,
        selector: str = "",
        optional: bool = False,
    ) -> None:
        """``scaled``: the names of those whose counts are written; an empty name: all of them."""
        key = (namespace, group, resource, wanted)
        if key in self.watches:
            return
        rights = [*watching(namespace, group, resource)]
        if (group, resource) == PODS:
            rights.append(reporting(namespace))
            if self._annotate:
                rights.append(annotating(namespace))
        elif (group, resource) == (ADAPTER_GROUP, GRAPHS) and self._restart:
            rights.append(restarting(namespace))
        rights += [scaling(namespace, group, resource, name) for name in dict.fromkeys(scaled)]
        self.watches[key] = KeyedWatch(
            self._cluster,
            [Collection(namespace, group, version, resource) for version in versions],
            read,
            keys,
            rights=rights,
            selector=selector,
            optional=optional,
        )

    def pods(self, namespace: str) -> KeyedWatch[WorkerPod]:
        """The pods, by label."""
        return self.watches[(namespace, *PODS, "")]

    def autoscalers(self, namespace: str) -> KeyedWatch[dict[str, Any]]:
        """HorizontalPodAutoscalers, by what they aim at."""
        return self.watches[(namespace, *AUTOSCALERS, "")]

    def scaled_objects(self, namespace: str) -> KeyedWatch[dict[str, Any]]:
        """KEDA's ScaledObjects, by what they aim at."""
        return self.watches[(namespace, *SCALED_OBJECTS, "")]

    def targets(self, namespace: str, group: str, resource: str, version: str = "") -> KeyedWatch[dict[str, Any]]:
        """Objects that have a count, by name."""
        return self.watches[(namespace, group, resource, version)]

    def graphs(self, namespace: str, version: str = "") -> KeyedWatch[WatchedGraph]:
        """Graphs, by name."""
        return self.watches[(namespace, ADAPTER_GROUP, GRAPHS, version)]

    def needed_by(self, watched: WatchedPools) -> dict[str, KeyedWatch[Any]]:
        """Those that a deployment needs, by what they are called for people."""
        home = watched.namespace
        found: list[KeyedWatch[Any]] = []
        if watched.graph:
            found += [self.targets(home, ADAPTER_GROUP, ADAPTERS), self.graphs(home)]
        for target in watched.targets.values():
            found.append(self.targets(home, target.group, target.resource, target.version))
            if target.is_adapter:
                found.append(self.graphs(home, target.version))
        found += [self.pods(home), self.autoscalers(home), self.scaled_objects(home)]
        return {one.collection.name: one for one in found}

    def join(self, watched: WatchedPools, wake: Wake) -> None:
        """Call ``wake`` when something that a deployment needs becomes known or unknown."""
        for watch in self.needed_by(watched).values():
            watch.join(wake)


def _pod_selector(watched: Sequence[WatchedPools]) -> str:
    """The narrowest selector of pods that fits all of these deployments; empty: all pods."""
    if not all(one.pods_are_graphs for one in watched):
        return ""
    graphs = {one.graph for one in watched}
    only = next(iter(graphs)) if len(graphs) == 1 else ""
    return f"{GRAPH_LABEL}={only}" if only else GRAPH_LABEL
