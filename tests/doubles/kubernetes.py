"""A Kubernetes API server for tests: any resource, revisions, conflicts, watches, sub-resources, selectors, rights.

Speaks HTTP as the real one does where clients notice: one revision counter, 409 on an old resourceVersion or a name
taken, no new revision for a write that changes nothing, merge patch only under its own content type, watches from a
revision with bookmarks and 410, ``/status`` apart from the rest, ``/scale``, managed fields, custom resources by their
definitions, service accounts with tokens, RBAC with SelfSubjectAccessReview, pods that leave gracefully. Its
conformance tests also run against a real cluster when KUBECONFIG names one.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import itertools
import json
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.doubles.kubernetes_parts import rbac
from tests.doubles.kubernetes_parts.answers import NotServed, Refused, content, kept, now, scaled, target_of
from tests.doubles.kubernetes_parts.managed_fields import Writer, after_write
from tests.doubles.kubernetes_parts.selectors import merged, selected
from tests.doubles.kubernetes_parts.served import (
    ACCESS_REVIEWS,
    ACCOUNTS,
    DEFINITIONS,
    PODS,
    SUBJECT_REVIEWS,
    Collection,
    Object,
    ScalePaths,
    Served,
    Target,
    built_in,
    defined,
    established,
    scale_of,
)

GRACE_S = 30
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass
class Change:
    revision: int
    kind: str
    collection: Collection
    item: Object
    before: Object | None


@dataclass
class KubernetesDouble:
    """Start with ``async with``. Without a token, or with ``administrator``, everything is allowed.

    A service account's token has the rights that Role objects give it. ``rights``: instead, by token, which (verb,
    resource) are allowed.
    """

    rights: dict[str, Callable[[str, str], bool]] | None = None
    administrator: str = "secret"
    bookmark_s: float = 60.0
    url: str = ""
    revision: int = 1000
    requests: list[tuple[str, str]] = field(default_factory=list)
    _served: dict[Collection, Served] = field(default_factory=built_in)
    _objects: dict[Collection, dict[tuple[str, str], Object]] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)
    _changes: deque[Change] = field(default_factory=deque)
    _oldest: int = 1000
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _faults: deque[int] = field(default_factory=deque)
    _watches: set[asyncio.Task[Any]] = field(default_factory=set)
    silent: bool = False
    """Watches stay open and say nothing, as behind a dead load balancer."""
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> KubernetesDouble:
        await self._listen(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _listen(self, port: int) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    # What tests do to it.

    async def stop(self) -> None:
        """Go away: no connection is open or taken any more. What is stored stays."""
        self.drop_watches()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def start_again(self) -> None:
        """Come back at the same address."""
        await self._listen(int(self.url.rpartition(":")[2]))

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

    def go_back(self, revisions: int) -> None:
        """Count on from an earlier revision, as a store does that was restored from a copy."""
        self.revision -= revisions
        self.compact()

    async def put(self, group: str, resource: str, item: Object) -> Object:
        """Create or replace, without asking about versions or definitions."""
        self._served.setdefault((group, resource), Served("Object", status=True, scale=ScalePaths()))
        meta = item.setdefault("metadata", {})
        key = (meta.get("namespace", ""), meta["name"])
        before = self._collection((group, resource)).get(key)
        return await self._store(Target(group, resource, *key), copy.deepcopy(item), before, "tests")

    async def remove(self, group: str, resource: str, namespace: str, name: str) -> None:
        """Delete at once, without grace."""
        target = Target(group, resource, namespace, name)
        await self._remove(target, self._get(target))

    def objects(self, group: str, resource: str) -> list[Object]:
        return [copy.deepcopy(item) for item in self._collection((group, resource)).values()]

    def find(self, group: str, resource: str, namespace: str, name: str) -> Object:
        return copy.deepcopy(self._get(Target(group, resource, namespace, name)))

    # HTTP.

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        try:
            self._fault()
            target = target_of(request.path)
            served = self._resource(target)
            self._permit(request, target)
            if request.method == "GET" and not target.name:
                if request.query.get("watch", "").lower() in ("1", "t", "true"):
                    return await self._watch(request, target, served)
                return web.json_response(self._list(request, target, served))
            return await self._one(request, target, served)
        except Refused as refused:
            return web.json_response(refused.body, status=refused.status)
        except NotServed:
            return web.Response(text="404 page not found\n", status=404)

    def _fault(self) -> None:
        if self._faults:
            status = self._faults.popleft()
            raise Refused(status, "Injected", f"injected {status}")

    def _resource(self, target: Target) -> Served:
        served = self._served.get(target.collection)
        if served is None or (served.versions and target.version not in served.versions):
            raise NotServed
        token = target.collection == ACCOUNTS and target.sub == "token"
        known = {"": True, "scale": served.scale is not None, "status": served.status, "token": token}
        if not known.get(target.sub, False):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return served

    async def _one(self, request: web.Request, target: Target, served: Served) -> web.Response:
        if request.method == "GET":
            return web.json_response(self._shown(self._get(target), target, served))
        text = await request.text()
        try:
            body = json.loads(text) if text else {}
        except ValueError as error:
            raise Refused(400, "BadRequest", "the body is not JSON") from error
        manager = request.query.get("fieldManager") or request.headers.get("User-Agent", "").partition("/")[0]
        if request.method == "DELETE":
            return web.json_response(await self._delete(target, body, request.query.get("gracePeriodSeconds")))
        if request.method == "POST":
            return web.json_response(await self._post(request, target, body, manager), status=201)
        if request.method == "PATCH":
            if request.content_type != "application/merge-patch+json":
                raise Refused(
                    415, "UnsupportedMediaType", f"the double takes merge patches, not {request.content_type}"
                )
            if not isinstance(body, dict):
                raise Refused(400, "BadRequest", "a merge patch is an object")
            after = await self._change(target, body, manager, merge=True)
        elif request.method == "PUT":
            after = await self._change(target, body, manager, merge=False)
        else:
            raise Refused(405, "MethodNotAllowed", request.method)
        return web.json_response(self._shown(after, target, served))

    def _shown(self, item: Object, target: Target, served: Served) -> Object:
        if target.sub == "scale":
            assert served.scale is not None
            return scale_of(item, served.scale)
        if served.kind == "Object":
            return item
        return {**item, "kind": served.kind, "apiVersion": target.api_version}

    async def _post(self, request: web.Request, target: Target, body: Object, manager: str) -> Object:
        if target.collection == ACCESS_REVIEWS:
            return self._review(request, body)
        if target.collection == SUBJECT_REVIEWS:
            return rbac.subject_review(body, self._stored_objects)
        if target.sub == "token":
            self._get(target)
            token = f"token-{uuid.uuid4().hex}"
            self._tokens[token] = rbac.account_user(target.namespace, target.name)
            return {**body, "kind": "TokenRequest", "status": {"token": token}}
        return await self._create(target, body, manager)

    # Rights.

    def _user(self, request: web.Request) -> str | None:
        """The user of a service account's token; None for an administrator."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in ("", self.administrator):
            return None
        user = self._tokens.get(token)
        if user is None:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return user

    def _permit(self, request: web.Request, target: Target) -> None:
        verb = VERBS.get(request.method, "get")
        if verb == "get" and not target.name:
            verb = "watch" if request.query.get("watch") else "list"
        resource = f"{target.resource}/{target.sub}" if target.sub else target.resource
        if self.rights is not None:
            allowed = self.rights.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
            if allowed is None:
                raise Refused(401, "Unauthorized", "Unauthorized")
            if not allowed(verb, resource):
                raise Refused(403, "Forbidden", f'{resource} is forbidden: User cannot {verb} resource "{resource}"')
            return
        user = self._user(request)
        if user is None or target.collection == ACCESS_REVIEWS:
            return
        if not rbac.allowed(
            rbac.AccessQuestion(user, verb, target.group, resource, target.namespace, target.name), self._stored_objects
        ):
            where = f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
            raise Refused(
                403,
                "Forbidden",
                f'{target.resource} is forbidden: User "{user}" cannot {verb} resource "{resource}" '
                f'in API group "{target.group}"{where}',
            )

    def _review(self, request: web.Request, body: Object) -> Object:
        """A SelfSubjectAccessReview: resource and sub-resource are asked apart."""
        about = body.get("spec", {}).get("resourceAttributes")
        if not about:
            raise Refused(422, "Invalid", "spec.resourceAttributes: Required value")
        sub = about.get("subresource")
        resource = f"{about.get('resource', '')}/{sub}" if sub else about.get("resource", "")
        user = self._user(request)
        asked = rbac.AccessQuestion(
            user or "admin",
            about.get("verb", ""),
            about.get("group", ""),
            resource,
            about.get("namespace", ""),
            about.get("name", ""),
        )
        allowed = user is None or rbac.allowed(asked, self._stored_objects)
        return {
            **body,
            "kind": "SelfSubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "metadata": {},
            "status": {"allowed": allowed},
        }

    def _stored_objects(self, group: str, resource: str) -> list[Object]:
        return list(self._collection((group, resource)).values())

    # Lists and watches.

    def _list(self, request: web.Request, target: Target, served: Served) -> Object:
        query = request.query
        items = [
            item for item in self._collection(target.collection).values() if selected(item, target.namespace, query)
        ]
        start, limit = int(query.get("continue", 0)), int(query.get("limit", 0))
        end = start + limit if limit else len(items)
        metadata = {"resourceVersion": str(self.revision)} | ({"continue": str(end)} if end < len(items) else {})
        shown = [self._shown(item, target, served) for item in items[start:end]]
        return {"kind": f"{served.kind}List", "apiVersion": target.api_version, "metadata": metadata, "items": shown}

    async def _watch(self, request: web.Request, target: Target, served: Served) -> web.StreamResponse:
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
                await self._stream(request, target, served, response, seen)
        except (TimeoutError, asyncio.CancelledError, ConnectionError):
            if request.transport is not None and task.cancelling():
                request.transport.abort()
        finally:
            self._watches.discard(task)
        return response

    def _after(self, seen: int) -> list[Change]:
        """Changes since a revision, the oldest first. Read from the end: every watch asks at each change."""
        newer = list(itertools.takewhile(lambda change: change.revision > seen, reversed(self._changes)))
        newer.reverse()
        return newer

    def _newer_than(self, seen: int) -> bool:
        return self.revision > seen

    async def _stream(
        self, request: web.Request, target: Target, served: Served, response: web.StreamResponse, seen: int
    ) -> None:
        bookmarks = request.query.get("allowWatchBookmarks") in ("1", "true")
        while True:
            for change in self._after(seen):
                seen = change.revision
                kind = _as_seen(change, target, request.query)
                if kind is not None and not self.silent:
                    await _send(response, kind, self._shown(change.item, target, served))
            try:
                async with asyncio.timeout(self.bookmark_s), self._news:
                    await self._news.wait_for(functools.partial(self._newer_than, seen))
            except TimeoutError:
                if self.revision < seen:
                    # From a version that is not reached yet: a real server accepts it and says nothing until then.
                    continue
                seen = self.revision
                if bookmarks and not self.silent:
                    await _send(response, "BOOKMARK", {"kind": served.kind, "metadata": {"resourceVersion": str(seen)}})

    # The store.

    def _collection(self, collection: Collection) -> dict[tuple[str, str], Object]:
        return self._objects.setdefault(collection, {})

    def _get(self, target: Target) -> Object:
        item = self._collection(target.collection).get((target.namespace, target.name))
        if item is None:
            raise Refused(404, "NotFound", f'{target.resource} "{target.name}" not found')
        return item

    async def _create(self, target: Target, body: Object, manager: str) -> Object:
        meta = body.setdefault("metadata", {})
        if "generateName" in meta and "name" not in meta:
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        if target.namespace:
            meta["namespace"] = target.namespace
        if (target.namespace, meta.get("name")) in self._collection(target.collection):
            raise Refused(409, "AlreadyExists", f'{target.resource} "{meta["name"]}" already exists')
        if not meta.get("name"):
            raise Refused(422, "Invalid", "metadata.name: Required value")
        served = self._served[target.collection]
        if served.status:
            # What a creator writes into the status is dropped, as a real server does.
            body = {key: value for key, value in body.items() if key != "status"}
        if target.collection == PODS:
            body["status"] = {"phase": "Pending"}
        if target.collection == DEFINITIONS:
            body = established(body)
            collection, new = defined(body)
            self._served[collection] = new
        where = Target(target.group, target.resource, target.namespace, meta["name"], version=target.version)
        return self._shown(await self._store(where, body, None, manager), where, served)

    async def _change(self, target: Target, body: Object, manager: str, *, merge: bool) -> Object:
        before = self._get(target)
        asked = body.get("metadata", {}).get("resourceVersion")
        if asked is not None and asked != before["metadata"]["resourceVersion"]:
            message = (
                f'Operation cannot be fulfilled on {target.resource} "{target.name}": the object has been modified; '
                "please apply your changes to the latest version and try again"
            )
            raise Refused(409, "Conflict", message)
        served = self._served[target.collection]
        if target.sub == "scale":
            after = scaled(before, body, served.scale or ScalePaths())
        else:
            after = merged(before, body) if merge else copy.deepcopy(body)
            after["metadata"] = {**after.get("metadata", {}), **kept(before["metadata"])}
            if served.status:
                own, other = (before, after) if target.sub == "status" else (after, before)
                after = {**own, "status": served.stored(other.get("status"))}
                if after["status"] is None:
                    del after["status"]
        if content(after) == content(before):
            return before
        if "deletionTimestamp" in before["metadata"] and _released(before, after):
            return await self._remove(target, after)
        return await self._store(target, after, before, manager)

    async def _delete(self, target: Target, options: Object, grace: str | None) -> Object:
        """A pod on a node is only marked, and goes when its kubelet deletes it without grace.

        So is what has finalizers, which goes when the last of them is removed.
        """
        item = self._get(target)
        if item["metadata"].get("finalizers"):
            if "deletionTimestamp" in item["metadata"]:
                return item
            return await self._store(
                target, {**item, "metadata": {**item["metadata"], "deletionTimestamp": now()}}, item, None
            )
        asked = options.get("gracePeriodSeconds") if grace is None else int(grace)
        if target.collection == PODS and item.get("spec", {}).get("nodeName") and asked != 0:
            if "deletionTimestamp" in item["metadata"]:
                return item
            marked = copy.deepcopy(item)
            grace_s = GRACE_S if asked is None else asked
            marked["metadata"] |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": grace_s}
            return await self._store(target, marked, item, None)
        return await self._remove(target, item)

    async def _remove(self, target: Target, item: Object) -> Object:
        del self._collection(target.collection)[(target.namespace, target.name)]
        if target.collection == DEFINITIONS:
            collection, _ = defined(item)
            self._served.pop(collection, None)
            self._objects.pop(collection, None)
        self.revision += 1
        gone = copy.deepcopy(item)
        gone["metadata"]["resourceVersion"] = str(self.revision)
        await self._send_changes(Change(self.revision, "DELETED", target.collection, gone, item))
        return gone

    async def _store(self, target: Target, item: Object, before: Object | None, manager: str | None) -> Object:
        self.revision += 1
        item = {**item, "metadata": dict(item["metadata"])}
        meta = item["metadata"]
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", now())
        changed = before is None or before.get("spec") != item.get("spec")
        meta["generation"] = (before or {}).get("metadata", {}).get("generation", 0) + int(changed)
        if manager is not None:
            meta["managedFields"] = after_write(before, item, Writer(manager, target.api_version, target.sub), now())
        meta["resourceVersion"] = str(self.revision)
        self._collection(target.collection)[(target.namespace, target.name)] = item
        kind = "ADDED" if before is None else "MODIFIED"
        await self._send_changes(Change(self.revision, kind, target.collection, copy.deepcopy(item), before))
        return item

    async def _send_changes(self, change: Change) -> None:
        self._changes.append(change)
        async with self._news:
            self._news.notify_all()


def _released(before: Object, after: Object) -> bool:
    """Whether a write took the last finalizer away."""
    return bool(before["metadata"].get("finalizers")) and not after["metadata"].get("finalizers")


def _as_seen(change: Change, target: Target, query: Any) -> str | None:
    """The kind of event for one watcher: an object that leaves a selector is DELETED to it, one that enters ADDED."""
    if change.collection != target.collection:
        return None
    now = change.kind != "DELETED" and selected(change.item, target.namespace, query)
    before = change.before is not None and selected(change.before, target.namespace, query)
    if now:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else None


async def _send(response: web.StreamResponse, kind: str, item: Object) -> None:
    await response.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")
