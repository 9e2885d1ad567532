"""A Kubernetes API server for tests: any resource, revisions, conflicts, watches, sub-resources, selectors, rights.

Speaks HTTP as the real one does where clients notice: one revision counter, 409 on an old resourceVersion or a name
taken, merge patch only under its own content type, watches from a revision with bookmarks and 410, ``/status`` apart
from the rest, ``/scale``. Its conformance tests also run against a real cluster when KUBECONFIG names one.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import json
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

Object = dict[str, Any]
KINDS = {
    "pods": "Pod",
    "events": "Event",
    "leases": "Lease",
    "deployments": "Deployment",
    "dynamographdeployments": "DynamoGraphDeployment",
    "dynamographdeploymentscalingadapters": "DynamoGraphDeploymentScalingAdapter",
}
WITH_STATUS = {"pods", "deployments", "dynamographdeployments", "dynamographdeploymentscalingadapters"}


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


@dataclass(frozen=True)
class Target:
    """A request's path, taken apart."""

    group: str
    resource: str
    namespace: str = ""
    name: str = ""
    sub: str = ""

    @property
    def collection(self) -> tuple[str, str]:
        return (self.group, self.resource)


@dataclass
class Change:
    revision: int
    kind: str
    collection: tuple[str, str]
    item: Object
    before: Object | None


@dataclass
class KubernetesDouble:
    """Start with ``async with``. ``rights``: by token, which (verb, resource) are allowed; None: everything."""

    rights: dict[str, Callable[[str, str], bool]] | None = None
    bookmark_s: float = 60.0
    url: str = ""
    revision: int = 1000
    requests: list[tuple[str, str]] = field(default_factory=list)
    _objects: dict[tuple[str, str], dict[tuple[str, str], Object]] = field(default_factory=dict)
    _changes: deque[Change] = field(default_factory=deque)
    _oldest: int = 1000
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _faults: deque[int] = field(default_factory=deque)
    _watches: set[asyncio.Task[Any]] = field(default_factory=set)
    silent: bool = False
    """Watches stay open and say nothing, as behind a dead load balancer."""
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> KubernetesDouble:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()

    # What tests do to it.

    def fail(self, *statuses: int) -> None:
        """Answer the next requests with these codes."""
        self._faults.extend(statuses)

    def drop_watches(self) -> None:
        """Cut every open watch in the middle of the stream."""
        for task in list(self._watches):
            task.cancel()

    def compact(self) -> None:
        """Forget the history: a watch from before is answered 410."""
        self._changes.clear()
        self._oldest = self.revision

    async def put(self, group: str, resource: str, item: Object) -> Object:
        """Create or replace, without asking about versions."""
        meta = item.setdefault("metadata", {})
        key = (meta.get("namespace", ""), meta["name"])
        before = self._collection((group, resource)).get(key)
        return await self._store(Target(group, resource, *key), copy.deepcopy(item), before)

    async def remove(self, group: str, resource: str, namespace: str, name: str) -> None:
        await self._delete(Target(group, resource, namespace, name))

    def objects(self, group: str, resource: str) -> list[Object]:
        return [copy.deepcopy(item) for item in self._collection((group, resource)).values()]

    def find(self, group: str, resource: str, namespace: str, name: str) -> Object:
        return copy.deepcopy(self._get(Target(group, resource, namespace, name)))

    # HTTP.

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        try:
            self._fault()
            target = _target(request.path)
            self._permit(request, target)
            if request.method == "GET" and not target.name:
                if request.query.get("watch", "").lower() in ("1", "t", "true"):
                    return await self._watch(request, target)
                return web.json_response(self._list(request, target))
            return await self._one(request, target)
        except Refused as refused:
            return web.json_response(refused.body, status=refused.status)

    def _fault(self) -> None:
        if self._faults:
            status = self._faults.popleft()
            raise Refused(status, "Injected", f"injected {status}")

    async def _one(self, request: web.Request, target: Target) -> web.Response:
        if request.method == "GET":
            item = self._get(target)
            return web.json_response(_scale_of(item, target) if target.sub == "scale" else item)
        if request.method == "DELETE":
            return web.json_response(await self._delete(target))
        try:
            body = json.loads(await request.text())
        except ValueError as error:
            raise Refused(400, "BadRequest", "the body is not JSON") from error
        if request.method == "POST":
            return web.json_response(await self._create(target, body), status=201)
        if request.method == "PATCH":
            if request.content_type != "application/merge-patch+json":
                raise Refused(
                    415, "UnsupportedMediaType", f"the double takes merge patches, not {request.content_type}"
                )
            if not isinstance(body, dict):
                raise Refused(400, "BadRequest", "a merge patch is an object")
            return web.json_response(await self._change(target, body, merge=True))
        if request.method == "PUT":
            return web.json_response(await self._change(target, body, merge=False))
        raise Refused(405, "MethodNotAllowed", request.method)

    def _permit(self, request: web.Request, target: Target) -> None:
        if self.rights is None:
            return
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        allowed = self.rights.get(token)
        if allowed is None:
            raise Refused(401, "Unauthorized", "Unauthorized")
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(request.method, "get")
        if verb == "get" and not target.name:
            verb = "watch" if request.query.get("watch") else "list"
        resource = f"{target.resource}/{target.sub}" if target.sub else target.resource
        if not allowed(verb, resource):
            raise Refused(403, "Forbidden", f"{resource} is forbidden: User can not {verb} resource {resource}")

    def _list(self, request: web.Request, target: Target) -> Object:
        query = request.query
        items = [item for item in self._collection(target.collection).values() if _selected(item, target, query)]
        start, limit = int(query.get("continue", 0)), int(query.get("limit", 0))
        end = start + limit if limit else len(items)
        metadata = {"resourceVersion": str(self.revision)} | ({"continue": str(end)} if end < len(items) else {})
        kind = KINDS.get(target.resource, "Object") + "List"
        return {"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": items[start:end]}

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        seen = int(request.query.get("resourceVersion") or self.revision)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        task = asyncio.current_task()
        assert task is not None
        await response.prepare(request)
        if seen < self._oldest:
            gone = Refused(410, "Expired", f"too old resource version: {seen} ({self._oldest})").body
            await _send(response, "ERROR", gone)
            return response
        self._watches.add(task)
        try:
            async with asyncio.timeout(float(request.query.get("timeoutSeconds", 3600))):
                await self._stream(request, target, response, seen)
        except (TimeoutError, asyncio.CancelledError, ConnectionError):
            if request.transport is not None and task.cancelling():
                request.transport.abort()
        finally:
            self._watches.discard(task)
        return response

    def _newer_than(self, seen: int) -> bool:
        return self.revision > seen

    async def _stream(self, request: web.Request, target: Target, response: web.StreamResponse, seen: int) -> None:
        bookmarks = request.query.get("allowWatchBookmarks") in ("1", "true")
        while True:
            for change in [change for change in self._changes if change.revision > seen]:
                seen = change.revision
                kind = _as_seen(change, target, request.query)
                if kind is not None and not self.silent:
                    await _send(response, kind, change.item)
            try:
                async with asyncio.timeout(self.bookmark_s), self._news:
                    await self._news.wait_for(functools.partial(self._newer_than, seen))
            except TimeoutError:
                seen = self.revision
                if bookmarks and not self.silent:
                    kind = KINDS.get(target.resource, "Object")
                    await _send(response, "BOOKMARK", {"kind": kind, "metadata": {"resourceVersion": str(seen)}})

    # The store.

    def _collection(self, collection: tuple[str, str]) -> dict[tuple[str, str], Object]:
        return self._objects.setdefault(collection, {})

    def _get(self, target: Target) -> Object:
        item = self._collection(target.collection).get((target.namespace, target.name))
        if item is None:
            raise Refused(404, "NotFound", f'{target.resource} "{target.name}" not found')
        return item

    async def _create(self, target: Target, body: Object) -> Object:
        meta = body.setdefault("metadata", {})
        if "generateName" in meta and "name" not in meta:
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        meta["namespace"] = target.namespace
        if (target.namespace, meta.get("name")) in self._collection(target.collection):
            raise Refused(409, "AlreadyExists", f'{target.resource} "{meta["name"]}" already exists')
        if not meta.get("name"):
            raise Refused(422, "Invalid", "metadata.name: Required value")
        return await self._store(Target(target.group, target.resource, target.namespace, meta["name"]), body, None)

    async def _change(self, target: Target, body: Object, *, merge: bool) -> Object:
        before = self._get(target)
        asked = body.get("metadata", {}).get("resourceVersion")
        if asked is not None and asked != before["metadata"]["resourceVersion"]:
            message = (
                f'Operation cannot be fulfilled on {target.resource} "{target.name}": the object has been modified'
            )
            raise Refused(409, "Conflict", message)
        if target.sub == "scale":
            return await self._rescale(target, before, body)
        after = _merged(before, body) if merge else copy.deepcopy(body)
        if target.resource in WITH_STATUS:
            part = "status" if target.sub == "status" else None
            after = {**before, "status": after.get("status", {})} if part else {**after, "status": before.get("status")}
            if after["status"] is None:
                del after["status"]
        after["metadata"] = {**before["metadata"], **after.get("metadata", {})}
        return await self._store(target, after, before)

    async def _rescale(self, target: Target, before: Object, body: Object) -> Object:
        replicas = body.get("spec", {}).get("replicas")
        if not isinstance(replicas, int) or replicas < 0:
            raise Refused(422, "Invalid", "spec.replicas: must be an integer of at least 0")
        after = copy.deepcopy(before)
        after.setdefault("spec", {})["replicas"] = replicas
        return _scale_of(await self._store(target, after, before), target)

    async def _delete(self, target: Target) -> Object:
        item = self._get(target)
        del self._collection(target.collection)[(target.namespace, target.name)]
        self.revision += 1
        gone = copy.deepcopy(item)
        gone["metadata"]["resourceVersion"] = str(self.revision)
        await self._send_changes(Change(self.revision, "DELETED", target.collection, gone, item))
        return gone

    async def _store(self, target: Target, item: Object, before: Object | None) -> Object:
        self.revision += 1
        meta = item["metadata"]
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"))
        changed = before is None or before.get("spec") != item.get("spec")
        meta["generation"] = (before or {}).get("metadata", {}).get("generation", 0) + int(changed)
        meta["resourceVersion"] = str(self.revision)
        self._collection(target.collection)[(target.namespace, target.name)] = item
        kind = "ADDED" if before is None else "MODIFIED"
        await self._send_changes(Change(self.revision, kind, target.collection, copy.deepcopy(item), before))
        return item

    async def _send_changes(self, change: Change) -> None:
        self._changes.append(change)
        async with self._news:
            self._news.notify_all()


def _target(path: str) -> Target:
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["api", "v1"]:
        group, rest = "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, rest = parts[1], parts[3:]
    else:
        raise Refused(404, "NotFound", f"no such path: {path}")
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) >= 3:
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3:
        raise Refused(404, "NotFound", f"no such path: {path}")
    return Target(group, rest[0], namespace, *rest[1:])


def _selected(item: Object, target: Target, query: Mapping[str, str]) -> bool:
    if target.namespace and item["metadata"].get("namespace") != target.namespace:
        return False
    labels = item["metadata"].get("labels") or {}
    fields = (_requirement(part) for part in query.get("fieldSelector", "").split(",") if part)
    wanted = (_requirement(part) for part in query.get("labelSelector", "").split(",") if part)
    return all(_holds(_field(item, *one), one) for one in fields) and all(
        _holds(labels.get(one[0]), one) for one in wanted
    )


def _requirement(text: str) -> tuple[str, str, str]:
    for sign in ("!=", "==", "="):
        if sign in text:
            key, _, value = text.partition(sign)
            return key.strip(), "!=" if sign == "!=" else "=", value.strip()
    return (text[1:].strip(), "absent", "") if text.startswith("!") else (text.strip(), "present", "")


def _field(item: Object, path: str, *_: str) -> str | None:
    value: Any = item
    for part in path.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    return value if isinstance(value, str) else ""


def _holds(value: str | None, requirement: tuple[str, str, str]) -> bool:
    _, sign, wanted = requirement
    return {"=": value == wanted, "!=": value != wanted, "present": value is not None, "absent": value is None}[sign]


def _as_seen(change: Change, target: Target, query: Mapping[str, str]) -> str | None:
    """The kind of event for one watcher: an object that leaves a selector is DELETED to it, one that enters ADDED."""
    if change.collection != target.collection:
        return None
    now = change.kind != "DELETED" and _selected(change.item, target, query)
    before = change.before is not None and _selected(change.before, target, query)
    if now:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else None


def _merged(before: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    after = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = _merged(after.get(key), value)
    return after


def _scale_of(item: Object, target: Target) -> Object:
    status = item.get("status") or {}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: item["metadata"].get(key) for key in ("name", "namespace", "uid", "resourceVersion")},
        "spec": {"replicas": item.get("spec", {}).get("replicas", 0)},
        "status": {"replicas": status.get("replicas", 0), "selector": status.get("selector", "")},
    }


async def _send(response: web.StreamResponse, kind: str, item: Object) -> None:
    await response.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")
