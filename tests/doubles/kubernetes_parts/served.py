"""Which resources an API server serves: those of its own, and those that a CustomResourceDefinition adds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
Collection = tuple[str, str]
"""(group, resource)"""
DEFINITIONS: Collection = ("apiextensions.k8s.io", "customresourcedefinitions")
ACCESS_REVIEWS: Collection = ("authorization.k8s.io", "selfsubjectaccessreviews")
SUBJECT_REVIEWS: Collection = ("authorization.k8s.io", "subjectaccessreviews")
ACCOUNTS: Collection = ("", "serviceaccounts")
PODS: Collection = ("", "pods")


@dataclass(frozen=True)
class ScalePaths:
    """Where ``/scale`` finds its numbers in an object; an empty ``selector`` means ``spec.selector``."""

    wanted: tuple[str, ...] = ("spec", "replicas")
    present: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ()


@dataclass(frozen=True)
class Served:
    """One resource. ``versions`` empty: all; ``optional``: counts in the status that are left out at zero."""

    kind: str
    versions: frozenset[str] = frozenset()
    status: bool = False
    scale: ScalePaths | None = None
    optional: tuple[str, ...] = ()

    def stored(self, status: dict[str, Any] | None) -> dict[str, Any] | None:
        """A status as the server keeps it."""
        if status is None:
            return None
        return {name: found for name, found in status.items() if found or name not in self.optional}


@dataclass(frozen=True)
class Target:
    """A request's path, taken apart."""

    group: str
    resource: str
    namespace: str = ""
    name: str = ""
    sub: str = ""
    version: str = "v1"

    @property
    def collection(self) -> Collection:
        return (self.group, self.resource)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def built_in() -> dict[Collection, Served]:
    """The resources that a server has without any definition, as far as the tests use them."""
    v1, workload = frozenset({"v1"}), ScalePaths()
    counts = ("readyReplicas", "updatedReplicas")
    rbac = "rbac.authorization.k8s.io"
    return {
        PODS: Served("Pod", v1, status=True),
        ("", "events"): Served("Event", v1),
        ("", "configmaps"): Served("ConfigMap", v1),
        ("", "services"): Served("Service", v1, status=True),
        ("batch", "jobs"): Served("Job", v1, status=True),
        ("", "namespaces"): Served("Namespace", v1, status=True),
        ("", "nodes"): Served("Node", v1, status=True),
        ACCOUNTS: Served("ServiceAccount", v1),
        ("coordination.k8s.io", "leases"): Served("Lease", v1),
        ("apps", "deployments"): Served(
            "Deployment", v1, status=True, scale=workload, optional=("replicas", "availableReplicas", *counts)
        ),
        ("apps", "statefulsets"): Served("StatefulSet", v1, status=True, scale=workload, optional=counts),
        ("autoscaling", "horizontalpodautoscalers"): Served(
            "HorizontalPodAutoscaler", frozenset({"v1", "v2"}), status=True
        ),
        (rbac, "roles"): Served("Role", v1),
        (rbac, "rolebindings"): Served("RoleBinding", v1),
        (rbac, "clusterroles"): Served("ClusterRole", v1),
        (rbac, "clusterrolebindings"): Served("ClusterRoleBinding", v1),
        DEFINITIONS: Served("CustomResourceDefinition", v1, status=True),
        ACCESS_REVIEWS: Served("SelfSubjectAccessReview", v1),
        SUBJECT_REVIEWS: Served("SubjectAccessReview", v1),
    }


def defined(definition: Mapping[str, Any]) -> tuple[Collection, Served]:
    """What a CustomResourceDefinition adds. The subresources of its first version stand for all of them."""
    spec = definition["spec"]
    served = [version for version in spec["versions"] if version.get("served")]
    subresources = served[0].get("subresources") or {}
    paths = subresources.get("scale")
    scale = None
    if paths is not None:
        scale = ScalePaths(
            _path(paths["specReplicasPath"]), _path(paths["statusReplicasPath"]), _path(paths.get("labelSelectorPath"))
        )
    versions = frozenset(version["name"] for version in served)
    return (spec["group"], spec["names"]["plural"]), Served(
        spec["names"]["kind"], versions, status="status" in subresources, scale=scale
    )


def established(definition: Object) -> Object:
    """The definition as its controller leaves it."""
    names = definition["spec"]["names"]
    conditions = [{"type": one, "status": "True", "reason": "Accepted"} for one in ("NamesAccepted", "Established")]
    return {**definition, "status": {"conditions": conditions, "acceptedNames": names}}


def scale_of(item: Object, paths: ScalePaths) -> Object:
    """An object as its ``/scale`` shows it."""
    found = _at(item, paths.selector) if paths.selector else _labels(item)
    meta = item["metadata"]
    keys = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    wanted = _at(item, paths.wanted)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in keys if key in meta},
        "spec": {"replicas": wanted} if wanted else {},
        "status": {"replicas": _at(item, paths.present) or 0, "selector": found or ""},
    }


def rescaled(item: Object, paths: ScalePaths, replicas: int) -> Object:
    """The object with another wanted count."""
    after = copy.deepcopy(item)
    part = after
    for key in paths.wanted[:-1]:
        part = part.setdefault(key, {})
    part[paths.wanted[-1]] = replicas
    return after


def _labels(item: Mapping[str, Any]) -> str:
    labels = ((item.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _path(text: str | None) -> tuple[str, ...]:
    return tuple(part for part in (text or "").split(".") if part)


def _at(item: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        item = item.get(key) if isinstance(item, Mapping) else None
    return item
