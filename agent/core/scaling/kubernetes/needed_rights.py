"""The rights that a connector needs, to be asked one by one, and the manifest line for each that is missing. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GRAPHS = "dynamographdeployments"


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource of a namespace; a SelfSubjectAccessReview asks for a sub-resource apart.

    ``name``: of the only object that is meant; empty: all, which a rule with ``resourceNames`` does not give.
    """

    namespace: str
    verb: str
    group: str
    resource: str
    subresource: str = ""
    name: str = ""

    @property
    def path(self) -> str:
        """The resource as a Role names it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def watching(namespace: str, group: str, resource: str) -> tuple[Right, ...]:
    """What a watch of a collection needs."""
    return tuple(Right(namespace, verb, group, resource) for verb in ("list", "watch"))


def scaling(namespace: str, group: str, resource: str, name: str = "") -> Right:
    """What writing a count needs, of one object or of all: nothing is read there."""
    return Right(namespace, "patch", group, resource, "scale", name)


def reporting(namespace: str) -> Right:
    """What writing Events needs."""
    return Right(namespace, "create", "", "events")


def restarting(namespace: str) -> Right:
    """What restarting a graph needs."""
    return Right(namespace, "patch", "nvidia.com", GRAPHS)


def annotating(namespace: str) -> Right:
    """What writing power limits to pods needs."""
    return Right(namespace, "patch", "", "pods")


def manifest_lines(missing: Iterable[Right]) -> tuple[str, ...]:
    """One sentence for each resource that lacks rights, with the rule to add to the Role of its namespace."""
    rules: dict[tuple[str, str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for right in missing:
        verbs, names = rules.setdefault((right.namespace, right.group, right.path), ({}, {}))
        verbs[right.verb] = None
        names[right.name] = None
    return tuple(
        f"{' and '.join(verbs)} on {path} in namespace {namespace} is not allowed: add to the Role's rules: "
        f'- {{apiGroups: ["{group}"], resources: ["{path}"], {_named(names)}verbs: [{", ".join(verbs)}]}}'
        for (namespace, group, path), (verbs, names) in rules.items()
    )


def _named(names: Iterable[str]) -> str:
    """Which objects a rule is for; nothing where it is for all of them."""
    found = list(names)
    return "" if "" in found else f"resourceNames: [{', '.join(found)}], "
