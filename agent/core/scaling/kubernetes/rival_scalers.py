"""Other things that write a target's count: autoscalers that aim at it, and the graph's own planner. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from agent.core.scaling.kubernetes.scale_targets import ScaleTarget

_KEDA_PAUSED = "autoscaling.keda.sh/paused"


def rival(
    target: ScaleTarget,
    kind: str,
    autoscalers: Iterable[Mapping[str, Any]],
    scaled_objects: Iterable[Mapping[str, Any]],
) -> str:
    """The autoscaler that aims at a target of this kind, named; empty where there is none.

    ``autoscalers``: HorizontalPodAutoscalers, and ``scaled_objects``: KEDA's, both of the target's namespace. KEDA's
    own HorizontalPodAutoscaler is not named beside the ScaledObject that made it.
    """
    for item in scaled_objects:
        if _aims(item, target, kind, default_kind="Deployment") and not _paused(item):
            return f"ScaledObject {item['metadata']['name']}"
    for item in autoscalers:
        if _aims(item, target, kind, default_kind=""):
            return f"HorizontalPodAutoscaler {item['metadata']['name']}"
    return ""


def _aims(item: Mapping[str, Any], target: ScaleTarget, kind: str, *, default_kind: str) -> bool:
    """Whether it aims at the target, in whatever version of its group."""
    reference = (item.get("spec") or {}).get("scaleTargetRef") or {}
    version = str(reference.get("apiVersion") or "apps/v1")
    group = version.rpartition("/")[0]
    return (group, reference.get("kind") or default_kind, reference.get("name")) == (target.group, kind, target.name)


def _paused(item: Mapping[str, Any]) -> bool:
    value = str((item["metadata"].get("annotations") or {}).get(_KEDA_PAUSED, "false"))
    return value.lower() == "true"


def planner_in_the_way(graph: Mapping[str, Any]) -> str:
    """Why a graph's own planner and a connector cannot work side by side, with what to do; empty where they can.

    They cannot while the planner acts, or sets power limits. Wattscale's own planner as a part of the graph is not in
    the way: the connector carries out what it decides, and the claim on the bus keeps a second connector away. Reads
    both versions of a graph: ``components`` (a list with ``type``) and ``services`` (a mapping with ``componentType``).
    """
    for name, component in _components(graph):
        kind = component.get("type") or component.get("componentType")
        if kind != "planner" or component.get("replicas", 1) == 0 or _is_ours(component):
            continue
        settings = _configuration(component)
        if settings.get("advisory") is not True:
            return f"the graph's planner {name} scales it: set advisory: true there, or remove it"
        if settings.get("enable_power_awareness"):
            return f"the graph's planner {name} sets power limits: set enable_power_awareness: false there"
    return ""


def _components(graph: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    spec = graph.get("spec") or {}
    listed = [(str(one.get("name", "")), one) for one in spec.get("components") or ()]
    return listed + [(str(name), one or {}) for name, one in (spec.get("services") or {}).items()]


def _is_ours(component: Mapping[str, Any]) -> bool:
    first = next(iter(_words(component)), "")
    return first.rpartition("/")[2] == "wattscale"


def _words(component: Mapping[str, Any]) -> list[str]:
    """Of the command lines of its containers."""
    pod = component.get("podTemplate") or component.get("extraPodSpec") or {}
    containers = list((pod.get("spec") or {}).get("containers") or ())
    if pod.get("mainContainer"):
        containers.append(pod["mainContainer"])
    return [str(word) for one in containers for word in (*(one.get("command") or ()), *(one.get("args") or ()))]


def _configuration(component: Mapping[str, Any]) -> dict[str, Any]:
    """What a planner's command line has as a configuration in JSON; empty where it has none."""
    found: dict[str, Any] = {}
    for word in _words(component):
        found |= _json_object(word) | _json_object(word.partition("=")[2])
    return found


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
