"""Objects as a connector keeps them: only the fields that it reads. Pure.

A graph's pod templates alone would take more memory than everything else in a connector of many deployments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.scaling.kubernetes.field_writers import owners
from agent.core.scaling.kubernetes.graph_restart import GraphRestart, graph_restart
from agent.core.scaling.kubernetes.rival_scalers import planner_in_the_way
from agent.core.scaling.kubernetes.scale_targets import reference_of
from agent.core.scaling.kubernetes.workload_pods import WorkerPod

_METADATA = ("name", "namespace", "uid", "resourceVersion", "generation")
_SPEC = ("replicas", "selector", "dgdRef", "scaleTargetRef")


@dataclass(frozen=True, slots=True)
class WatchedGraph:
    """A DynamoGraphDeployment. ``in_the_way``: as `planner_in_the_way` has it. ``restart``: what it says of one."""

    item: Mapping[str, Any]
    in_the_way: str
    restart: GraphRestart


def lean_target(item: Mapping[str, Any]) -> dict[str, Any]:
    """An object that has a count, or an autoscaler."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    kept = {key: metadata[key] for key in _METADATA if key in metadata}
    if "annotations" in metadata:
        kept["annotations"] = {
            key: value for key, value in metadata["annotations"].items() if key.startswith("autoscaling.keda.sh/")
        }
    kept["managedFields"] = owners(metadata.get("managedFields"))
    return {
        "kind": item.get("kind", ""),
        "metadata": kept,
        "spec": {key: spec[key] for key in _SPEC if key in spec},
        "status": item.get("status") or {},
    }


def lean_graph(item: Mapping[str, Any]) -> WatchedGraph:
    """A graph without its specification."""
    metadata = {key: item["metadata"][key] for key in _METADATA if key in item["metadata"]}
    lean = {"metadata": metadata, "status": item.get("status") or {}}
    return WatchedGraph(lean, planner_in_the_way(item), graph_restart(item))


def target_keys(item: Mapping[str, Any]) -> Iterator[str]:
    """Under what a target is found: its name, and for a scaling adapter also its graph's."""
    yield str(item["metadata"]["name"])
    reference = reference_of(item)
    if reference is not None:
        yield graph_key(reference.graph)


def graph_key(graph: str) -> str:
    """The key of all scaling adapters of a graph. No object has such a name."""
    return f"graph {graph}"


def graph_keys(graph: WatchedGraph) -> Iterator[str]:
    """Under what a graph is found: its name."""
    yield str(graph.item["metadata"]["name"])


def autoscaler_keys(item: Mapping[str, Any]) -> Iterator[str]:
    """Under what an autoscaler is found: the name of the object that it aims at."""
    yield str(((item.get("spec") or {}).get("scaleTargetRef") or {}).get("name", ""))


def pod_keys(pod: WorkerPod) -> Iterator[str]:
    """Under what a pod is found: each of its labels."""
    return (label_key(*pair) for pair in pod.labels.items())


def label_key(label: str, value: str) -> str:
    """The key of all pods with a label."""
    return f"{label}={value}"
