"""Does what a request's step names. Everything may be done twice: names are fixed, and what is there already stays."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from agent.adapters.kubernetes.api import ApiError
from deploy.requests.cluster.profiling_job import JobOptions, profiling_job
from deploy.requests.cluster.request_objects import (
    BATCH,
    CORE,
    FINALIZER,
    FORM,
    OWN,
    RESOURCE,
    SIZES,
    TP_LABEL,
    job_name,
    owned,
    path,
    path_of,
)
from deploy.requests.cluster.request_view import NOT_FOUND, RequestView
from deploy.requests.local_outputs import PLAIN_FILE, PLANNER_FILE
from planner.profiler.requests.generated.config_maps import GRAPH_FILE, output_map, profile_map
from planner.profiler.requests.generated.deployment_sizing import size_deployment
from planner.profiler.requests.generated.graph_components import PROFILE_PATH
from planner.profiler.requests.generated.graph_deployment import graph_deployment
from planner.profiler.requests.generated.plain_deployments import plain_deployments
from planner.profiler.requests.generated.planner_configuration import PlannerPlace, planner_configuration
from planner.profiler.requests.lifecycle import RequestAction

if TYPE_CHECKING:
    from agent.connectors.kubernetes.cluster_client import ClusterClient

log = logging.getLogger("wattscale.requests")
THERE_ALREADY = 409


@dataclass(frozen=True, slots=True)
class ClusterPlace:
    """What Jobs are made of, and where planners find bus and Prometheus. ``prometheus`` empty: not known."""

    image: str
    offline_image: str
    account: str
    quick: bool
    bus: str
    prometheus: str


class RequestActions:
    """The actions on one cluster. Each raises ApiError."""

    def __init__(self, cluster: ClusterClient, place: ClusterPlace) -> None:
        self._cluster = cluster
        self._place = place

    async def do(self, action: RequestAction, view: RequestView, item: Mapping[str, Any]) -> None:
        """Do one. Raises UsageError as well, where the request cannot be profiled."""
        match action:
            case RequestAction.START_PROFILING:
                await self._start(view, item["metadata"]["uid"])
            case RequestAction.STOP_PROFILING:
                await self._remove_jobs(view)
            case RequestAction.WRITE_OUTPUTS:
                await self._write(view, item["metadata"]["uid"])
            case RequestAction.APPLY_DEPLOYMENT:
                await self._apply(view)
            case RequestAction.REMOVE_OUTPUTS:
                await self._remove_maps(view)
            case RequestAction.RELEASE:
                await self._remove_jobs(view)
                await self._remove_maps(view)
                await self.release(item)

    async def _start(self, view: RequestView, uid: str) -> None:
        """The ConfigMap first: the Job may only change one that is there."""
        request, tp, place = view.request, view.tp, self._place
        if tp is None:
            return
        options = JobOptions(place.image, place.offline_image, place.account, place.quick, view.graph)
        job = profiling_job(request, uid, tp, options)
        metadata = owned(request, uid, job_name(request, tp))
        metadata["labels"][TP_LABEL] = str(tp)
        metadata["annotations"] = {SIZES: ",".join(map(str, view.sizes))}
        await self._make(path(CORE, request.namespace, "configmaps"), _config_map(metadata, {}))
        await self._make(path(BATCH, request.namespace, "jobs"), job)

    async def _write(self, view: RequestView, uid: str) -> None:
        """The ConfigMap of outputs comes last: with it the deployment is generated."""
        request, profile = view.request, view.profile
        if profile is None:
            return
        sizing = size_deployment(profile, request)
        here = PlannerPlace(
            PROFILE_PATH,
            self._place.bus,
            "disaggregated" if view.graph else "aggregated",
            {},
            self._place.prometheus,
        )
        texts = {
            GRAPH_FILE: _text(graph_deployment(request, sizing)),
            PLANNER_FILE: _text(planner_configuration(request, sizing, here)),
        }
        if not request.mocker:
            texts[PLAIN_FILE] = yaml.safe_dump_all(plain_deployments(request, sizing), sort_keys=False)
        for found, notes in (
            (profile_map(request, view.files), {}),
            (output_map(request, texts), {FORM: GRAPH_FILE if view.graph else PLAIN_FILE}),
        ):
            metadata = owned(request, uid, found["metadata"]["name"])
            made = {**found, "metadata": {**metadata, "annotations": notes}}
            if not await self._make(path(CORE, request.namespace, "configmaps"), made):
                log.warning("%s/%s: ConfigMap %s stays as it is", request.namespace, request.name, metadata["name"])

    async def _apply(self, view: RequestView) -> None:
        generated = view.seen.generated
        assert generated is not None  # noqa: S101 - Deploying follows what was generated
        for item in generated["items"] if generated["kind"] == "List" else [generated]:
            await self._make(path_of(item), item)

    async def _make(self, where: str, item: Mapping[str, Any]) -> bool:
        """Create; False where the name is taken already."""
        try:
            await self._cluster.send("POST", where, item)
        except ApiError as error:
            if error.status == THERE_ALREADY:
                return False
            raise
        return True

    async def _remove_jobs(self, view: RequestView) -> None:
        """With their pods."""
        for name in view.jobs:
            await self._remove(path(BATCH, view.request.namespace, "jobs", name), {"propagationPolicy": "Background"})

    async def _remove_maps(self, view: RequestView) -> None:
        """That of the outputs first: a kill in between leaves no outputs without their profile."""
        for name in sorted(view.maps, key=lambda each: each != view.request.output_name):
            await self._remove(path(CORE, view.request.namespace, "configmaps", name))

    async def _remove(self, where: str, query: Mapping[str, str] | None = None) -> None:
        try:
            await self._cluster.send("DELETE", where, None, query)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise

    async def hold(self, item: Mapping[str, Any]) -> None:
        """Let the request not go before this has removed what is its."""
        await self._finalizers(item, [*(item["metadata"].get("finalizers") or ()), FINALIZER])

    async def release(self, item: Mapping[str, Any]) -> None:
        """Let it go."""
        await self._finalizers(item, [one for one in item["metadata"].get("finalizers") or () if one != FINALIZER])

    async def _finalizers(self, item: Mapping[str, Any], wanted: list[str]) -> None:
        meta = item["metadata"]
        body = {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": wanted}}
        await self._cluster.send("PATCH", path(OWN, meta["namespace"], RESOURCE, meta["name"]), body)


def _config_map(metadata: Mapping[str, Any], data: Mapping[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": dict(metadata), "data": dict(data)}


def _text(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False)
