"""What the cluster holds of one request now: its Jobs, results, outputs and deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from agent.adapters.kubernetes.api import ApiError
from agent.adapters.kubernetes.pages import Reader, pages
from deploy.profiling.node_gpus import tp_sizes
from deploy.requests.cluster.cluster_gpus import ClusterGpus, cluster_gpus, with_found
from deploy.requests.cluster.request_objects import (
    APPS,
    BATCH,
    CORE,
    FORM,
    GRAPHS,
    NODES,
    OFFLINE,
    REPORTED_PHASE,
    REPORTING_POD,
    SIZES,
    UID_LABEL,
    bears,
    is_owned,
    job_name,
    path,
)
from deploy.requests.cluster.result_choice import chosen_results
from planner.adapters.profiles import META_FILE, ProfileError
from planner.domain.profile import Profile
from planner.profiler.analysis.profiling_phase import OF_PROFILER, ProfilingPhase
from planner.profiler.requests.generated.deployment_sizing import SizingError, size_deployment
from planner.profiler.requests.generated.energy_cost import energy_cost
from planner.profiler.requests.generated.graph_components import PROFILE_MAP
from planner.profiler.requests.lifecycle import (
    DeploymentProgress,
    DeploymentSeen,
    JobProgress,
    ProfilingSeen,
    RequestSeen,
)
from planner.profiler.requests.power_request import PowerRequest
from planner.profiler.requests.request_status import RequestState, RequestStatus

NOT_FOUND = 404
BEFORE_OUTPUTS = (None, RequestState.PENDING, RequestState.PROFILING)
ENDED = ("Succeeded", "Failed")
"""Phases of a pod."""
Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RequestView:
    """One reading. ``request``: with GPUs as found; ``tp``: the size to profile next, None: none is left.

    ``files`` and ``profile``: of the chosen results, once all sizes are done and as long as nothing is generated.
    """

    request: PowerRequest
    seen: RequestSeen
    graph: bool
    sizes: tuple[int, ...] = ()
    tp: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    profile: Profile | None = None
    jobs: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Owned:
    """Jobs and ConfigMaps that were made for a request, by name."""

    jobs: Mapping[str, Item]
    maps: Mapping[str, Item]


async def read_view(
    cluster: Reader, request: PowerRequest, item: Mapping[str, Any], status: RequestStatus, refusal: str = ""
) -> RequestView:
    """What there is. ``refusal``: why the last object could not be made; empty: it was. Raises ApiError."""
    uid, deleting = item["metadata"]["uid"], bool(item["metadata"].get("deletionTimestamp"))
    mine = await _owned(cluster, request.namespace, uid)
    graph = await graphs_served(cluster, request.namespace)
    outputs = mine.maps.get(request.output_name)
    generated = None if outputs is None else _generated(outputs)
    deployment = await _deployment(cluster, request, status, graph)
    if refusal and deployment.progress is DeploymentProgress.ABSENT:
        deployment = DeploymentSeen(DeploymentProgress.REFUSED, refusal)
    jobs, maps = tuple(mine.jobs), tuple(mine.maps)
    seen = RequestSeen(deployment=deployment, generated=generated, deleting=deleting)
    if deleting:
        runs = any(_progress(job) is JobProgress.RUNNING for job in mine.jobs.values())
        progress = JobProgress.RUNNING if runs else JobProgress.ABSENT
        return RequestView(request, replace(seen, profiling=ProfilingSeen(progress)), graph, jobs=jobs, maps=maps)
    if status.state not in BEFORE_OUTPUTS:
        return RequestView(request, seen, graph, jobs=jobs, maps=maps)
    gpus = cluster_gpus(await items(cluster, NODES))
    found = with_found(request, gpus)
    view = RequestView(found, replace(seen, gpus=gpus.most), graph, _sizes(found, mine, gpus), jobs=jobs, maps=maps)
    if (obstacle := refusal or await _obstacle(cluster, found, uid, graph)) and generated is None:
        phase = status.profiling_phase or ProfilingPhase.INITIALIZING
        return _profiled(view, ProfilingSeen(JobProgress.FAILED, phase, obstacle))
    return await _profiling(cluster, view, mine)


async def graphs_served(cluster: Reader, namespace: str) -> bool:
    """Whether Dynamo's graphs exist here. Raises ApiError."""
    return await _or_none(cluster, path(GRAPHS, namespace, "dynamographdeployments"), {"limit": "1"}) is not None


async def items(cluster: Reader, where: str, query: Mapping[str, str] | None = None) -> list[Item]:
    """All objects of a collection. Raises ApiError."""
    return [item async for page in pages(cluster, where, query) for item in page.get("items", ())]


async def _owned(cluster: Reader, namespace: str, uid: str) -> Owned:
    chosen = {"labelSelector": f"{UID_LABEL}={uid}"}
    jobs = await items(cluster, path(BATCH, namespace, "jobs"), chosen)
    maps = await items(cluster, path(CORE, namespace, "configmaps"), chosen)
    alive = [one for one in jobs if not one["metadata"].get("deletionTimestamp")]
    return Owned({one["metadata"]["name"]: one for one in alive}, {one["metadata"]["name"]: one for one in maps})


async def _or_none(cluster: Reader, where: str, query: Mapping[str, str] | None = None) -> Item | None:
    try:
        return await cluster.get(where, query)
    except ApiError as error:
        if error.status == NOT_FOUND:
            return None
        raise


def _sizes(request: PowerRequest, mine: Owned, gpus: ClusterGpus) -> tuple[int, ...]:
    """TP sizes to profile, as they were written down with the first of them."""
    if request.offline is not None:
        return (OFFLINE,)
    for one in mine.maps.values():
        if text := (one["metadata"].get("annotations") or {}).get(SIZES):
            return tuple(int(size) for size in text.split(","))
    bounds = request.hardware
    most = min(gpus.most, bounds.max_gpus_per_engine or gpus.most, bounds.gpus_per_node or gpus.most)
    return tp_sizes(most, bounds.min_gpus_per_engine or 1)


async def _obstacle(cluster: Reader, request: PowerRequest, uid: str, graph: bool) -> str:
    """Why profiling would be in vain; empty where it is not."""
    if request.mocker and not graph:
        return "features.mocker needs Dynamo, whose graphs this cluster does not serve"
    names = [request.output_name, *([PROFILE_MAP] if request.mocker else [])]
    for name in names:
        found = await _or_none(cluster, path(CORE, request.namespace, "configmaps", name))
        if found is not None and not is_owned(found, uid):
            return f"ConfigMap {name} is not this request's: delete it, or use another name or namespace"
    return ""


async def _profiling(cluster: Reader, view: RequestView, mine: Owned) -> RequestView:
    """How far profiling is: the first TP size without a result decides."""
    request, failures = view.request, list[tuple[ProfilingPhase, str]]()
    results: list[Mapping[str, str]] = []
    for tp in view.sizes:
        name = job_name(request, tp)
        results_map = mine.maps.get(name, {})
        files = results_map.get("data") or {}
        job = mine.jobs.get(name)
        if META_FILE in files:
            results.append(files)
        elif job is None:
            return replace(_profiled(view, ProfilingSeen()), tp=tp)
        elif (progress := _progress(job)) is JobProgress.RUNNING:
            phase = await _phase_of_running(cluster, job, results_map)
            return replace(_profiled(view, ProfilingSeen(progress, phase)), tp=tp)
        else:
            failures.append((_reported(results_map)[0], await _failure(cluster, job, progress)))
    if not view.sizes:
        return _profiled(view, ProfilingSeen(JobProgress.FAILED, message="there is no TP size that the GPUs allow"))
    if not results:
        return _profiled(view, ProfilingSeen(JobProgress.FAILED, *failures[-1]))
    try:
        files, profile = chosen_results(results, request)
        sizing = size_deployment(profile, request)
    except (ProfileError, SizingError) as error:
        failed = ProfilingSeen(JobProgress.FAILED, ProfilingPhase.GENERATING_DGD, str(error))
        return _profiled(view, failed)
    done = ProfilingSeen(
        JobProgress.SUCCEEDED, ProfilingPhase.DONE, unmet=sizing.unmet, cost=energy_cost(request, sizing)
    )
    return replace(_profiled(view, done), files=files, profile=profile)


def _profiled(view: RequestView, profiling: ProfilingSeen) -> RequestView:
    return replace(view, seen=replace(view.seen, profiling=profiling))


def _progress(job: Mapping[str, Any]) -> JobProgress:
    for one in (job.get("status") or {}).get("conditions") or ():
        if one["status"] == "True" and one["type"] in ("Complete", "Failed"):
            return JobProgress.SUCCEEDED if one["type"] == "Complete" else JobProgress.FAILED
    return JobProgress.RUNNING


async def _phase_of_running(cluster: Reader, job: Mapping[str, Any], results_map: Mapping[str, Any]) -> ProfilingPhase:
    """As its pod reports. A report of a pod that is gone does not count: its successor begins anew."""
    phase, reporter = _reported(results_map)
    if phase is ProfilingPhase.INITIALIZING:
        return phase
    alive = [pod for pod in await _pods(cluster, job) if (pod.get("status") or {}).get("phase") not in ENDED]
    return phase if any(pod["metadata"].get("uid") == reporter for pod in alive) else ProfilingPhase.INITIALIZING


def _reported(results_map: Mapping[str, Any]) -> tuple[ProfilingPhase, str]:
    """The phase that a Job's pod reported last, and the pod's uid. Whatever is no phase of a profiler is none."""
    notes = (results_map.get("metadata") or {}).get("annotations") or {}
    value = notes.get(REPORTED_PHASE)
    phase = next((one for one in OF_PROFILER if one.value == value), ProfilingPhase.INITIALIZING)
    return phase, str(notes.get(REPORTING_POD, ""))


async def _pods(cluster: Reader, job: Mapping[str, Any]) -> list[Item]:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    return await items(cluster, path(CORE, namespace, "pods"), {"labelSelector": f"job-name={name}"})


async def _failure(cluster: Reader, job: Mapping[str, Any], progress: JobProgress) -> str:
    """Why a Job has no result: the last line of the container that failed, else what the Job's condition says."""
    name = job["metadata"]["name"]
    if progress is JobProgress.SUCCEEDED:
        return f"Job {name} has ended, and its ConfigMap has no result"
    for pod in await _pods(cluster, job):
        status = pod.get("status") or {}
        for one in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            ended = (one.get("state") or {}).get("terminated") or {}
            if ended.get("exitCode"):
                lines = str(ended.get("message") or ended.get("reason") or "").strip().splitlines()
                return f"Job {name}, {one['name']}: {lines[-1] if lines else ended['exitCode']}"[:900]
    conditions: Sequence[Mapping[str, Any]] = (job.get("status") or {}).get("conditions") or ()
    said = next((one.get("message") or one.get("reason") for one in conditions if one["type"] == "Failed"), None)
    return f"Job {name}: {said or 'failed'}"


def _generated(outputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is to be applied: the graph, or a List of the plain objects; None for a map that was not written here."""
    name = (outputs["metadata"].get("annotations") or {}).get(FORM, "")
    text = (outputs.get("data") or {}).get(name)
    if text is None:
        return None
    found = list(yaml.safe_load_all(text))
    return dict(found[0]) if len(found) == 1 else {"apiVersion": "v1", "kind": "List", "items": found}


async def _deployment(cluster: Reader, request: PowerRequest, status: RequestStatus, graph: bool) -> DeploymentSeen:
    root, resource = (GRAPHS, "dynamographdeployments") if graph else (APPS, "deployments")
    name, namespace = request.deployment_name, request.deployment_namespace
    item = await _or_none(cluster, path(root, namespace, resource, name))
    if item is None:
        return DeploymentSeen()
    if not bears(item, request.labels):
        if status.applied:
            return DeploymentSeen()
        return DeploymentSeen(DeploymentProgress.REFUSED, "the name is taken by one that is not this request's")
    return _graph_seen(item) if graph else _plain_seen(item)


def _graph_seen(item: Mapping[str, Any]) -> DeploymentSeen:
    """By Dynamo's ``status.state``; ``successful`` counts for the newest generation only."""
    status = item.get("status") or {}
    conditions = status.get("conditions") or ()
    message = next((str(one.get("message") or "") for one in conditions if one.get("type") == "Ready"), "")
    observed = status.get("observedGeneration", item["metadata"].get("generation", 0))
    if status.get("state") == "failed":
        return DeploymentSeen(DeploymentProgress.FAILED, message or "its operator says failed")
    if status.get("state") == "successful" and observed >= item["metadata"].get("generation", 0):
        return DeploymentSeen(DeploymentProgress.READY)
    return DeploymentSeen(DeploymentProgress.STARTING, message)


def _plain_seen(item: Mapping[str, Any]) -> DeploymentSeen:
    status, wanted = item.get("status") or {}, item["spec"].get("replicas", 1)
    available = status.get("availableReplicas", 0)
    if status.get("observedGeneration", 0) >= item["metadata"].get("generation", 0) and available >= wanted:
        return DeploymentSeen(DeploymentProgress.READY)
    return DeploymentSeen(DeploymentProgress.STARTING, f"{available} of {wanted} workers serve")
