"""Rights from the Role objects that are stored, as RBAC reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

GROUP = "rbac.authorization.k8s.io"
Stored = Callable[[str, str], list[dict[str, Any]]]
"""(group, resource) to the objects of that collection."""


@dataclass(frozen=True)
class AccessQuestion:
    """One question: may ``user`` do this? ``resource`` holds the sub-resource, as in ``pods/status``."""

    user: str
    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


def account_user(namespace: str, name: str) -> str:
    """A service account's user name."""
    return f"system:serviceaccount:{namespace}:{name}"


def allowed(asked: AccessQuestion, stored: Stored) -> bool:
    """Whether a binding of the namespace, or one of the whole cluster, gives the right."""
    for binding in stored(GROUP, "clusterrolebindings"):
        if _bound(asked, binding) and _rules(asked, binding, stored):
            return True
    return any(
        _bound(asked, binding) and _rules(asked, binding, stored)
        for binding in stored(GROUP, "rolebindings")
        if asked.namespace and binding["metadata"].get("namespace") == asked.namespace
    )


def _bound(asked: AccessQuestion, binding: Mapping[str, Any]) -> bool:
    for subject in binding.get("subjects") or ():
        if subject["kind"] == "ServiceAccount" and account_user(subject["namespace"], subject["name"]) == asked.user:
            return True
        if subject["kind"] == "User" and subject["name"] == asked.user:
            return True
    return False


def _rules(asked: AccessQuestion, binding: Mapping[str, Any], stored: Stored) -> bool:
    reference = binding["roleRef"]
    plural = "clusterroles" if reference["kind"] == "ClusterRole" else "roles"
    home = "" if plural == "clusterroles" else binding["metadata"].get("namespace", "")
    for role in stored(GROUP, plural):
        meta = role["metadata"]
        if meta["name"] == reference["name"] and meta.get("namespace", "") == home:
            return any(_gives(asked, rule) for rule in role.get("rules") or ())
    return False


def _gives(asked: AccessQuestion, rule: Mapping[str, Any]) -> bool:
    names = rule.get("resourceNames") or ()
    return (
        _has(rule.get("verbs"), asked.verb)
        and _has(rule.get("apiGroups"), asked.group)
        and _has(rule.get("resources"), asked.resource)
        and (not names or asked.name in names)
    )


def _has(given: Iterable[str] | None, wanted: str) -> bool:
    have = set(given or ())
    return "*" in have or wanted in have


def subject_review(body: Mapping[str, Any], stored: Stored) -> dict[str, Any]:
    """The answer to a SubjectAccessReview. Paths are discovery: a server opens it to whoever has authenticated."""
    spec = body.get("spec") or {}
    about, path, groups = spec.get("resourceAttributes"), spec.get("nonResourceAttributes"), spec.get("groups") or ()
    if "system:masters" in groups:
        may = True
    elif about:
        question = AccessQuestion(
            spec.get("user", ""),
            about.get("verb", ""),
            about.get("group", ""),
            about.get("resource", ""),
            about.get("namespace", ""),
        )
        may = allowed(question, stored)
    else:
        may = path is not None and path.get("verb") == "get" and "system:authenticated" in groups
    kind = {"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}}
    return {**body, **kind, "status": {"allowed": may}}
