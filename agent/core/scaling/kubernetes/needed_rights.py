"""The rights that a connector needs, to be asked one by one, and the manifest line for each that is missing. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.core.scaling.kubernetes.scale_targets import ScaleTarget

GRAPHS = "dynamographdeployments"


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource of a namespace; a SelfSubjectAccessReview asks for a sub-resource apart."""

    namespace: str
    verb: str
    group: str
    resource: str
    subresource: str = ""

    @property
    def path(self) -> str:
        """The resource as a Role names it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def needed(targets: Iterable[ScaleTarget]) -> tuple[Right, ...]:
    """What a connector for these targets needs, each right once."""
    rights: dict[Right, None] = {}
    for target in targets:
        home = target.namespace
        reads = [(target.group, target.resource), ("", "pods")]
        if target.is_adapter:
            reads.append((target.group, GRAPHS))
        for group, resource in reads:
            rights |= {Right(home, verb, group, resource): None for verb in ("get", "list", "watch")}
        rights |= {Right(home, verb, target.group, target.resource, "scale"): None for verb in ("get", "patch")}
        rights |= {
            Right(home, verb, "autoscaling", "horizontalpodautoscalers"): None for verb in ("get", "list", "watch")
        }
        rights[Right(home, "create", "", "events")] = None
    return tuple(rights)


def manifest_lines(missing: Iterable[Right]) -> tuple[str, ...]:
    """One sentence for each resource that lacks rights, with the rule to add to the Role of its namespace."""
    verbs: dict[tuple[str, str, str], list[str]] = {}
    for right in missing:
        verbs.setdefault((right.namespace, right.group, right.path), []).append(right.verb)
    return tuple(
        f"{' and '.join(found)} on {path} in namespace {namespace} is not allowed: add to the Role's rules: "
        f'- {{apiGroups: ["{group}"], resources: ["{path}"], verbs: [{", ".join(found)}]}}'
        for (namespace, group, path), found in verbs.items()
    )
