"""Who wrote an object's count, by ``metadata.managedFields``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.core.scaling.scaling_types import WriterKind

OWN = "wattscale"
"""The ``fieldManager`` of every write of ours."""
_KNOWN = {
    "kube-controller-manager": "a HorizontalPodAutoscaler (kube-controller-manager)",
    "keda": "KEDA (keda)",
    "OpenAPI-Generator": "a Python client without a name of its own, such as Dynamo's planner (OpenAPI-Generator)",
}

_AUTOSCALERS = {"kube-controller-manager", "keda"}
_PERSON = "kubectl"


def count_writer(managed_fields: object, path: tuple[str, ...] = ("spec", "replicas")) -> str:
    """Who owns the field at ``path``, in words; empty where that is us, or not known."""
    if not isinstance(managed_fields, list):
        return ""
    names = [str(entry.get("manager", "")) for entry in managed_fields if _owns(entry, path)]
    others = [name for name in names if name and name != OWN]
    return " and ".join(_in_words(name) for name in sorted(set(others)))


def count_writer_kind(managed_fields: object, path: tuple[str, ...] = ("spec", "replicas")) -> WriterKind:
    """What sort of writer owns the field at ``path``; of several, an autoscaler before a person."""
    names = {str(entry["manager"]) for entry in owners(managed_fields, path)} - {OWN}
    if names & _AUTOSCALERS:
        return WriterKind.AUTOSCALER
    return WriterKind.PERSON if any(name.startswith(_PERSON) for name in names) else WriterKind.OTHER


def is_own(managed_fields: object, path: tuple[str, ...]) -> bool:
    """Whether the field at ``path`` was written by us."""
    return any(entry["manager"] == OWN for entry in owners(managed_fields, path))


def owners(managed_fields: object, path: tuple[str, ...] = ("spec", "replicas")) -> list[dict[str, Any]]:
    """The entries that own the field at ``path``, without the other fields that they own."""
    if not isinstance(managed_fields, list):
        return []
    tree: dict[str, Any] = {}
    for key in reversed(path):
        tree = {f"f:{key}": tree}
    return [{"manager": entry.get("manager", ""), "fieldsV1": tree} for entry in managed_fields if _owns(entry, path)]


def _owns(entry: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    part: Any = entry.get("fieldsV1")
    for key in path:
        part = part.get(f"f:{key}") if isinstance(part, Mapping) else None
    return part is not None


def _in_words(manager: str) -> str:
    if manager.startswith(_PERSON):
        return f"a person with {manager}"
    return _KNOWN.get(manager, manager)
