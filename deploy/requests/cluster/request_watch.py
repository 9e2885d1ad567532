"""The controller of `wattscale request watch`: brings every request of a namespace on, whenever anything changes.

Each step reads the request anew and writes events, then the status over the version that was read, and then acts. Two
controllers at once do no harm: one of two writes of a status is refused, names of events and objects are fixed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from yaml import YAMLError

from agent.adapters.kubernetes.api import ApiError
from agent.adapters.kubernetes.list_watch import ListWatch, WatchTiming
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import run_together
from deploy.cli.errors import CliError, UsageError
from deploy.requests.cluster.request_actions import THERE_ALREADY, RequestActions
from deploy.requests.cluster.request_objects import (
    APPS,
    BATCH,
    CORE,
    FINALIZER,
    GRAPHS,
    OWN,
    RESOURCE,
    UID_LABEL,
    event_body,
    job_name,
    path,
)
from deploy.requests.cluster.request_view import NOT_FOUND, RequestView, graphs_served, read_view
from planner.profiler.requests.generated.deployment_sizing import SizingError
from planner.profiler.requests.lifecycle import RequestAction, RequestSeen, RequestStep, advance
from planner.profiler.requests.power_request import NAME_LABEL, PowerRequest
from planner.profiler.requests.request_manifest import RequestError, parse_request
from planner.profiler.requests.request_status import RequestStatus, status_from_dict, status_to_dict

if TYPE_CHECKING:
    from agent.connectors.kubernetes.cluster_client import ClusterClient

log = logging.getLogger("wattscale.requests")
KEPT = ("name", "namespace", "labels", "annotations", "generation")
"""Metadata that a request's form knows."""
NAMED = ("deployment", "dgdName", "profilingJobName")
"""Of a status: what only a spec that can be read says again."""
BROKEN = (ValueError, KeyError, TypeError, AttributeError, YAMLError)
MOST_STEPS = 20
LOOKS_EVERY_S = 15.0
"""Without a change: nodes and time-outs are not watched."""
AGAIN_AFTER_S = 3.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
FORBIDDEN = (401, 403)
REFUSED = (400, 422)
"""A server will never take this object; other refusals may pass, such as rights or a quota."""


class RequestWatch:
    """All requests of one namespace. ``now``: the time in UTC."""

    def __init__(
        self,
        cluster: ClusterClient,
        namespace: str,
        actions: RequestActions,
        *,
        timing: WatchTiming | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._actions = actions
        self._timing = timing
        self._now = now
        self._changed = asyncio.Event()
        self._requests = self._watched(path(OWN, namespace, RESOURCE))

    async def run(self) -> None:
        """Carry requests out until cancelled. Raises CliError where the cluster does not serve our kind."""
        graphs = await self._reached()
        watches = [
            self._requests,
            self._watched(path(BATCH, self._namespace, "jobs"), UID_LABEL),
            self._watched(path(APPS, self._namespace, "deployments"), NAME_LABEL),
        ]
        if graphs:
            watches.append(self._watched(path(GRAPHS, self._namespace, "dynamographdeployments"), NAME_LABEL))
        parts = {f"watch {number}": watch.run() for number, watch in enumerate(watches)}
        await run_together({**parts, "requests": self._carry_out()})

    @property
    def not_ready(self) -> str:
        """Why requests are not seen now; empty where they are."""
        if self._requests.items is None:
            return self._requests.last_error or "requests have not been listed yet"
        return self._requests.interrupted

    async def carry_out(self, name: str) -> None:
        """Bring one request as far as it goes now. Raises ApiError."""
        refusal = ""
        for _ in range(MOST_STEPS):
            try:
                item = await self._cluster.get(path(OWN, self._namespace, RESOURCE, name))
            except ApiError as error:
                if error.status == NOT_FOUND:
                    return
                raise
            if FINALIZER not in (item["metadata"].get("finalizers") or ()):
                if item["metadata"].get("deletionTimestamp"):
                    return
                await self._actions.hold(item)
                continue
            again, refusal = await self._step(item, refusal)
            if not again:
                return

    async def _reached(self) -> bool:
        """Wait for the server, however long it is away. Returns whether it serves Dynamo's graphs. Raises CliError."""
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                await self._cluster.get(path(OWN, self._namespace, RESOURCE), {"limit": "1"})
                return await graphs_served(self._cluster, self._namespace)
            except ApiError as error:
                if error.status == NOT_FOUND:
                    raise CliError(
                        "the cluster does not serve inferencepowerrequests.wattscale.io: install the chart with "
                        "requests.enabled"
                    ) from error
                if error.status in FORBIDDEN:
                    raise CliError(f"cannot list in namespace {self._namespace}: {error}") from error
                log.warning("%s", error)
            await asyncio.sleep(backoff.next_s())

    def _watched(self, where: str, label: str = "") -> ListWatch[bool]:
        selector = {"labelSelector": label} if label else {}
        if label:
            watch = ListWatch[Any](self._cluster, where, _version, selector=selector, timing=self._timing)
        else:
            watch = ListWatch[Any](self._cluster, where, _name, timing=self._timing)
        watch.on_change(self._changed.set)
        return watch

    async def _carry_out(self) -> None:
        while True:
            self._changed.clear()
            failed = False
            for name in sorted(set((self._requests.items or {}).values())):
                try:
                    await self.carry_out(str(name))
                except ApiError as error:
                    failed = True
                    # A conflict: somebody wrote in between, and the next step reads it.
                    log.log(logging.DEBUG if error.status == THERE_ALREADY else logging.WARNING, "%s: %s", name, error)
                except BROKEN:
                    # What somebody else wrote into one request's objects does not stop all others.
                    log.exception("%s cannot be carried out", name)
            try:
                async with asyncio.timeout(AGAIN_AFTER_S if failed else LOOKS_EVERY_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _step(self, item: Mapping[str, Any], refusal: str) -> tuple[bool, str]:
        """One step. Returns whether there may be another at once, and why an object could not be made."""
        status = _status(item)
        content = {**item, "metadata": {key: item["metadata"][key] for key in KEPT if key in item["metadata"]}}
        request: PowerRequest | RequestError
        try:
            request = parse_request(content)
        except RequestError as error:
            return await self._unreadable(item, error, status), ""
        view = await read_view(self._cluster, request, item, status, refusal)
        step = advance(view.request, status, view.seen, self._now())
        written = status_to_dict(
            step.status,
            name=request.deployment_name,
            namespace=request.deployment_namespace,
            job=job_name(request, view.sizes[0] if view.tp is None else view.tp) if view.sizes else request.job_name,
        )
        if await self._write(item, status, step, written):
            # Actions come with the next step, which names them again: what they change is then the newest.
            return True, refusal
        return await self._act(step, view, item)

    async def _unreadable(self, item: Mapping[str, Any], error: RequestError, status: RequestStatus) -> bool:
        """A spec that cannot be read; deleted, it leaves what was made before it changed to the garbage collector."""
        deleting = bool(item["metadata"].get("deletionTimestamp"))
        step = advance(error, status, RequestSeen(deleting=deleting), self._now())
        if RequestAction.RELEASE in step.actions:
            await self._actions.release(item)
            return False
        kept = {key: value for key, value in (item.get("status") or {}).items() if key in NAMED}
        return await self._write(item, status, step, {**status_to_dict(step.status), **kept})

    async def _write(
        self, item: Mapping[str, Any], status: RequestStatus, step: RequestStep, written: Mapping[str, Any]
    ) -> bool:
        """Write the events and then the status, over the version that was read. Returns whether anything changed."""
        meta = item["metadata"]
        for event in step.events:
            log.info("%s: %s: %s", meta["name"], event.reason.value, event.message)
            try:
                await self._cluster.send("POST", path(CORE, self._namespace, "events"), event_body(item, event))
            except ApiError as error:
                if error.status != THERE_ALREADY:
                    raise
        if step.status == status:
            return False
        where = path(OWN, self._namespace, RESOURCE, meta["name"])
        await self._cluster.send("PUT", f"{where}/status", {**item, "status": dict(written)})
        return True

    async def _act(self, step: RequestStep, view: RequestView, item: Mapping[str, Any]) -> tuple[bool, str]:
        """Do what a step names. Returns whether there may be another, and why an object cannot ever be made."""
        acted = False
        for action in step.actions:
            if action is RequestAction.START_PROFILING and view.tp is None:
                continue
            log.info("%s: %s", view.request.name, action.value)
            try:
                await self._actions.do(action, view, item)
            except ApiError as error:
                if error.status not in REFUSED:
                    raise
                return True, str(error)
            except UsageError as error:
                return True, "; ".join(error.lines)
            except SizingError as error:
                return True, str(error)
            acted = action is not RequestAction.RELEASE
        return acted, ""


def _status(item: Mapping[str, Any]) -> RequestStatus:
    """Raises ApiError for a status that was not written here: it is left alone, and named in the log."""
    try:
        return status_from_dict(item.get("status") or {})
    except ValueError as error:
        raise ApiError(0, f"its status was not written here: {error}; delete the request") from error


def _name(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["name"])


def _version(item: Mapping[str, Any]) -> str:
    return str(item["metadata"].get("resourceVersion", ""))
