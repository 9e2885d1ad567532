"""Label and field selectors, and merge patches."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


def selected(item: Mapping[str, Any], namespace: str, query: Mapping[str, str]) -> bool:
    """Whether an object lies in the namespace (empty: all) and meets the selectors of a query."""
    if namespace and item["metadata"].get("namespace") != namespace:
        return False
    labels = item["metadata"].get("labels") or {}
    fields = (_requirement(part) for part in query.get("fieldSelector", "").split(",") if part)
    wanted = (_requirement(part) for part in query.get("labelSelector", "").split(",") if part)
    return all(_holds(_field(item, *one), one) for one in fields) and all(
        _holds(labels.get(one[0]), one) for one in wanted
    )


def merged(before: Any, patch: Any) -> Any:
    """A JSON merge patch, RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    after = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = merged(after.get(key), value)
    return after


def _requirement(text: str) -> tuple[str, str, str]:
    for sign in ("!=", "==", "="):
        if sign in text:
            key, _, value = text.partition(sign)
            return key.strip(), "!=" if sign == "!=" else "=", value.strip()
    return (text[1:].strip(), "absent", "") if text.startswith("!") else (text.strip(), "present", "")


def _field(item: Mapping[str, Any], path: str, *_: str) -> str | None:
    value: Any = item
    for part in path.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    return value if isinstance(value, str) else ""


def _holds(value: str | None, requirement: tuple[str, str, str]) -> bool:
    _, sign, wanted = requirement
    return {"=": value == wanted, "!=": value != wanted, "present": value is not None, "absent": value is None}[sign]
