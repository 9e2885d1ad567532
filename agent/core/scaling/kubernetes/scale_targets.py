"""Which object a pool's count is written to. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ADAPTER_GROUP, ADAPTERS = "nvidia.com", "dynamographdeploymentscalingadapters"
GRAPH_LABEL, COMPONENT_LABEL = "nvidia.com/dynamo-graph-deployment-name", "nvidia.com/dynamo-component"
"""The labels of a graph's pods."""
_GANG_LABELS = {
    ("leaderworkerset.x-k8s.io", "leaderworkersets"): "leaderworkerset.sigs.k8s.io/name",
    ("grove.io", "podcliquescalinggroups"): "grove.io/podcliquescalinggroup",
}
"""Of kinds whose replica is several pods: the label that all pods of an object carry."""
_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_TARGET = re.compile(rf"(?P<resource>[a-z0-9]+)\.(?P<version>v[a-z0-9]+)\.(?P<group>{_NAME})/(?P<name>{_NAME})")


class BadTargetError(ValueError):
    """The text names no object; the message says how one is written."""


@dataclass(frozen=True, slots=True)
class ScaleTarget:
    """An object with ``/scale``."""

    group: str
    version: str
    resource: str
    namespace: str
    name: str

    @property
    def is_adapter(self) -> bool:
        """Whether it is a scaling adapter of Dynamo, whose status is an echo of its spec."""
        return (self.group, self.resource) == (ADAPTER_GROUP, ADAPTERS)

    def __str__(self) -> str:
        return f"{self.resource}.{self.group}/{self.name} in {self.namespace}"


def target_of(text: str, namespace: str) -> ScaleTarget:
    """A target as kubectl writes it, ``RESOURCE.VERSION.GROUP/NAME``. Raises BadTargetError."""
    found = _TARGET.fullmatch(text)
    if found is None:
        raise BadTargetError(f"{text!r} is not RESOURCE.VERSION.GROUP/NAME, as in deployments.v1.apps/chat-decode")
    return ScaleTarget(found["group"], found["version"], found["resource"], namespace, found["name"])


@dataclass(frozen=True, slots=True)
class AdapterReference:
    """The component of a graph that a scaling adapter stands for."""

    graph: str
    component: str


def reference_of(adapter: Mapping[str, Any]) -> AdapterReference | None:
    """Read from v1beta1 (``componentName``) or v1alpha1 (``serviceName``); None where it names no single component."""
    reference = (adapter.get("spec") or {}).get("dgdRef") or {}
    component = reference.get("componentName") or reference.get("serviceName")
    if not reference.get("name") or not component:
        return None
    return AdapterReference(str(reference["name"]), str(component))


def kind_of(target: ScaleTarget, item: Mapping[str, Any]) -> str:
    """The kind of a target's object. Lists of the built-in kinds leave it out of their items."""
    built_in = {"deployments": "Deployment", "statefulsets": "StatefulSet"}
    return built_in.get(target.resource, "") if target.group == "apps" else str(item.get("kind", ""))


def pod_labels(target: ScaleTarget, item: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a workload's pods: by its own selector, else by the one that its status shows; empty: not known."""
    if (label := _GANG_LABELS.get((target.group, target.resource))) is not None:
        return {label: target.name}
    selector = (item.get("spec") or {}).get("selector")
    if isinstance(selector, Mapping) and isinstance(selector.get("matchLabels"), Mapping):
        return {str(key): str(value) for key, value in selector["matchLabels"].items()}
    text = str((item.get("status") or {}).get("selector") or "")
    pairs = [part.partition("=") for part in text.split(",") if part]
    return {key: value for key, sign, value in pairs} if all(sign for _, sign, _ in pairs) else {}
