"""Who owns which field of an object: ``metadata.managedFields`` as a server keeps them for plain writes.

A writer owns the fields whose values its write changed; who owned them before loses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]


@dataclass(frozen=True)
class Writer:
    """Who writes: ``manager`` is the request's ``fieldManager``, or the first part of its user agent."""

    manager: str
    api_version: str
    subresource: str = ""


def after_write(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], writer: Writer, now: str
) -> list[dict[str, Any]]:
    """The managed fields of ``after``, written by ``writer`` over ``before``."""
    old = _leaves(before or {})
    new = _leaves(after)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    removed = set(old) - set(new)
    entries = (before or {}).get("metadata", {}).get("managedFields") or []
    kept: list[dict[str, Any]] = []
    own: set[Path] = set()
    for entry in entries:
        owned = _paths(entry["fieldsV1"])
        if _is(entry, writer):
            own = owned - removed
            continue
        left = owned - removed - changed
        if left:
            kept.append({**entry, "fieldsV1": _nested(left)})
    if changed or own:
        kept.append(
            {
                "manager": writer.manager,
                "operation": "Update",
                "apiVersion": writer.api_version,
                "time": now,
                "fieldsType": "FieldsV1",
                "fieldsV1": _nested(own | changed),
                **({"subresource": writer.subresource} if writer.subresource else {}),
            }
        )
    return kept


def _is(entry: Mapping[str, Any], writer: Writer) -> bool:
    return (entry["manager"], entry["apiVersion"], entry.get("subresource", "")) == (
        writer.manager,
        writer.api_version,
        writer.subresource,
    )


def _leaves(item: Mapping[str, Any]) -> dict[Path, Any]:
    """Values by path, without those that no writer owns (names, versions, times)."""
    found: dict[Path, Any] = {}
    for key, value in item.items():
        if key == "metadata":
            for part in ("labels", "annotations"):
                _collect((key, part), value.get(part) or {}, found)
        elif key not in ("kind", "apiVersion"):
            _collect((key,), value, found)
    return found


def _collect(path: Path, value: Any, found: dict[Path, Any]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _collect((*path, key), inner, found)
    else:
        found[path] = value


def _nested(paths: set[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        part = tree
        for key in path:
            part = part.setdefault(f"f:{key}", {})
    return tree


def _paths(tree: Mapping[str, Any], path: Path = ()) -> set[Path]:
    found: set[Path] = set()
    for key, inner in tree.items():
        deeper = (*path, key.removeprefix("f:"))
        found |= _paths(inner, deeper) if inner else {deeper}
    return found
