"""Refusals as a server words them, and what it reads out of a request."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.doubles.kubernetes_parts.served import Object, ScalePaths, Target, rescaled

KEPT_METADATA = ("name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion", "managedFields")


class Refused(Exception):  # noqa: N818 - an answer, not a defect
    def __init__(self, status: int, reason: str, message: str) -> None:
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": status,
            "reason": reason,
            "message": message,
        }
        self.status = status
        super().__init__(message)


class NotServed(Exception):  # noqa: N818 - an answer, not a defect
    """No such group, version or resource: a real server answers in plain text."""


def target_of(path: str) -> Target:
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["api", "v1"]:
        group, version, rest = "", "v1", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise NotServed
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) >= 3:
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3:
        raise NotServed
    name, sub = [*rest[1:], "", ""][:2]
    return Target(group, rest[0], namespace, name, sub, version)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def kept(metadata: Object) -> Object:
    """What no writer changes."""
    return {key: metadata[key] for key in KEPT_METADATA if key in metadata}


def content(item: Object) -> Object:
    """An object without what only the server writes, to see whether a write changes anything."""
    meta = {key: value for key, value in item["metadata"].items() if key not in ("managedFields", "resourceVersion")}
    return {**item, "metadata": meta, "kind": "", "apiVersion": ""}


def scaled(before: Object, body: Object, paths: ScalePaths) -> Object:
    replicas = body.get("spec", {}).get("replicas")
    if not isinstance(replicas, int) or replicas < 0:
        raise Refused(422, "Invalid", "spec.replicas: must be an integer of at least 0")
    return rescaled(before, paths, replicas)
