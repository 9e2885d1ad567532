"""The states of a request: one step from what is written and what is seen to what is written next, and what to do.

A step makes at most one transition; call it again until it neither changes the status nor names an action. Write the
status and the events first, then act. Every action may be done twice: it is named again for as long as its effect is
not seen, so that a controller that was killed between the two goes on.

    (new) -> Pending -> Profiling -> Deploying -> Deployed     autoApply
                                 -> Ready -> Deploying ...     applied by hand, or autoApply switched on
    Pending, Profiling, Deploying -> Failed
    Deployed -> Deploying (degraded), DeploymentDeleted
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from planner.profiler.analysis.profiling_phase import ProfilingPhase
from planner.profiler.requests.power_request import PowerRequest
from planner.profiler.requests.request_manifest import RequestError
from planner.profiler.requests.request_status import (
    ConditionType,
    EventReason,
    RequestEvent,
    RequestState,
    RequestStatus,
)


class RequestAction(StrEnum):
    """What is to be done."""

    START_PROFILING = "start_profiling"
    STOP_PROFILING = "stop_profiling"
    WRITE_OUTPUTS = "write_outputs"
    """Generate the deployment and the ConfigMaps from the profile."""
    APPLY_DEPLOYMENT = "apply_deployment"
    REMOVE_OUTPUTS = "remove_outputs"
    RELEASE = "release"
    """Nothing is left: the object may go."""


class JobProgress(StrEnum):
    """Of a profiling job."""

    ABSENT = "absent"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class DeploymentProgress(StrEnum):
    """Of the generated deployment. REFUSED: it cannot be made. FAILED: it is there, and cannot ever start."""

    ABSENT = "absent"
    REFUSED = "refused"
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ProfilingSeen:
    """The profiling job. ``message``: why it failed. ``unmet``: targets that no size meets, a line each.

    ``cost``: what the energy of the deployment costs, a sentence; empty: not asked for.
    """

    progress: JobProgress = JobProgress.ABSENT
    phase: ProfilingPhase = ProfilingPhase.INITIALIZING
    message: str = ""
    unmet: tuple[str, ...] = ()
    cost: str = ""


@dataclass(frozen=True, slots=True)
class DeploymentSeen:
    """The deployment with this request's labels, whoever applied it."""

    progress: DeploymentProgress = DeploymentProgress.ABSENT
    message: str = ""


@dataclass(frozen=True, slots=True)
class RequestSeen:
    """What is seen now.

    ``gpus``: how many may be profiled on; None: not counted. ``gpus_missing``: why there are none.
    ``generated``: the deployment as it was written to the outputs. ``deleting``: the request is to go.
    """

    profiling: ProfilingSeen = field(default_factory=ProfilingSeen)
    deployment: DeploymentSeen = field(default_factory=DeploymentSeen)
    generated: Mapping[str, Any] | None = None
    gpus: int | None = None
    gpus_missing: str = ""
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class RequestStep:
    """The next status, the events to record with it, and what to do then."""

    status: RequestStatus
    events: tuple[RequestEvent, ...] = ()
    actions: tuple[RequestAction, ...] = ()


def advance(
    request: PowerRequest | RequestError, status: RequestStatus, seen: RequestSeen, now: datetime
) -> RequestStep:
    """One step. ``request``: the spec as it is now, or why it cannot be read. ``status``: what the last step gave."""
    if seen.deleting:
        return _deleting(status, seen, now)
    if isinstance(request, RequestError):
        return _unreadable(request, status, now)
    state = status.state
    if state is None or _was_never_valid(status):
        return _initialised(request, now)
    if state is RequestState.PENDING:
        return _pending(request, status, seen, now)
    if (refused := _refused(request, status, now)) is not None:
        return refused
    status = replace(status, rejected="", observed_generation=request.generation, auto_apply=request.auto_apply)
    return _STEPS[state](request, status, seen, now)


def _initialised(request: PowerRequest, now: datetime) -> RequestStep:
    status = RequestStatus(
        state=RequestState.PENDING,
        observed_generation=request.generation,
        spec_hash=request.spec_hash,
        auto_apply=request.auto_apply,
    ).having(ConditionType.VALIDATION, True, "Valid", "the spec is valid", now)
    status = _summed(status, "Pending", "waiting for profiling", now)
    return RequestStep(status, (_event(EventReason.INITIALIZED, f"{request.model} on {request.backend}", now),))


def _pending(request: PowerRequest, status: RequestStatus, seen: RequestSeen, now: datetime) -> RequestStep:
    status = replace(
        status,
        observed_generation=request.generation,
        spec_hash=request.spec_hash,
        auto_apply=request.auto_apply,
    )
    needed = request.gpus_needed
    if seen.gpus is not None and seen.gpus < needed:
        why = f" ({seen.gpus_missing})" if seen.gpus_missing else ""
        message = f"profiling needs {needed} GPUs, and there are {seen.gpus}{why}"
        old = status.condition(ConditionType.PROFILING)
        status = status.having(ConditionType.PROFILING, False, "InsufficientGpus", message, now)
        status = _summed(status, "InsufficientGpus", message, now)
        is_news = old is None or old.message != message
        return RequestStep(status, (_event(EventReason.INSUFFICIENT_GPUS, message, now),) if is_news else ())
    how = "offline" if request.offline is not None else "online"
    status = replace(status, state=RequestState.PROFILING, profiling_phase=ProfilingPhase.INITIALIZING)
    status = _profiling(status, ProfilingPhase.INITIALIZING, now)
    created = _event(EventReason.PROFILING_JOB_CREATED, f"{request.job_name} ({how})", now)
    return RequestStep(status, (created,), (RequestAction.START_PROFILING,))


def _profiling_step(request: PowerRequest, status: RequestStatus, seen: RequestSeen, now: datetime) -> RequestStep:
    job = seen.profiling
    if job.progress is JobProgress.ABSENT:
        return RequestStep(status, (), (RequestAction.START_PROFILING,))
    if job.progress is JobProgress.RUNNING:
        return RequestStep(_profiling(replace(status, profiling_phase=job.phase), job.phase, now))
    if job.progress is JobProgress.FAILED:
        status = status.having(ConditionType.PROFILING, False, f"{job.phase.value}Failed", job.message, now)
        offline = request.offline is not None
        reason = EventReason.AI_CONFIGURATOR_FAILED if offline else EventReason.PROFILING_JOB_FAILED
        return _failed(status, reason, job.message, now)
    if seen.generated is None:
        phase = ProfilingPhase.GENERATING_DGD
        status = _profiling(replace(status, profiling_phase=phase), phase, now)
        return RequestStep(status, (), (RequestAction.WRITE_OUTPUTS,))
    return _generated(request, status, seen, now)


def _generated(request: PowerRequest, status: RequestStatus, seen: RequestSeen, now: datetime) -> RequestStep:
    status = replace(status, generated=seen.generated, profiling_phase=ProfilingPhase.DONE)
    status = status.having(ConditionType.PROFILING, True, "Completed", "profiling has ended", now)
    cost = f"; {seen.profiling.cost}" if seen.profiling.cost else ""
    message = f"deployment {request.deployment_name} is in {request.output_name}{cost}"
    status = status.having(ConditionType.SPEC_GENERATED, True, "SpecGenerated", message, now)
    events = [_event(EventReason.SLA_NOT_MET, line, now) for line in seen.profiling.unmet]
    events.append(_event(EventReason.SPEC_GENERATED, message, now))
    if request.auto_apply:
        return RequestStep(_deploying(status, "applying the deployment", now), tuple(events))
    status = _summed(replace(status, state=RequestState.READY), "Ready", message, now, holds=True)
    return RequestStep(status, tuple(events))


def _ready_step(request: PowerRequest, status: RequestStatus, seen: RequestSeen, now: datetime) -> RequestStep:
    """Generated, or applied once and deleted since: it goes on when it is applied by hand."""
    if seen.deployment.progress not in (DeploymentProgress.ABSENT, DeploymentProgress.REFUSED):
        created = _event(EventReason.DEPLOYMENT_CREATED, f"{request.deployment_name}, applied by hand", now)
        status = replace(status, applied=True)
        return RequestStep(_deploying(status, "applied by hand", now), (created,))
    if request.auto_apply and status.state is RequestState.READY:
        return RequestStep(_deploying(status, "autoApply was switched on", now))
    return RequestStep(status)


def _deploying_step(request: PowerRequest, status: RequestStatus, seen: RequestSeen, now: datetime) -> RequestStep:
    deployment, name = seen.deployment, request.deployment_name
    if deployment.progress in (DeploymentProgress.ABSENT, DeploymentProgress.REFUSED):
        if status.applied:
            return _deleted(status, name, now)
        if deployment.progress is DeploymentProgress.REFUSED:
            return _failed(status, EventReason.DEPLOYMENT_FAILED, f"{name}: {deployment.message}", now)
        return _timed_out(request, status, now) or RequestStep(status, (), (RequestAction.APPLY_DEPLOYMENT,))
    if not status.applied:
        status = replace(status, applied=True)
        return RequestStep(status, (_event(EventReason.DEPLOYMENT_CREATED, name, now),))
    if deployment.progress is DeploymentProgress.FAILED:
        return _failed(status, EventReason.DEPLOYMENT_FAILED, f"{name}: {deployment.message}", now)
    if deployment.progress is DeploymentProgress.READY:
        status = replace(status, state=RequestState.DEPLOYED)
        status = status.having(ConditionType.DEPLOYMENT_READY, True, "DeploymentReady", f"{name} serves", now)
        status = _summed(status, "Deployed", f"{name} serves", now, holds=True)
        return RequestStep(status, (_event(EventReason.DEPLOYMENT_READY, f"{name} serves", now),))
    return _timed_out(request, status, now) or RequestStep(status)


def _timed_out(request: PowerRequest, status: RequestStatus, now: datetime) -> RequestStep | None:
    """Failed, where a first start takes too long. One that served before may take as long as it needs."""
    condition = status.condition(ConditionType.DEPLOYMENT_READY)
    if condition is None or condition.reason == "DeploymentDegraded":
        return None
    waited_s = (now - condition.since).total_seconds()
    if waited_s <= request.deploys_within_s:
        return None
    message = f"{request.deployment_name} does not serve {request.deploys_within_s:g} s after it was applied"
    return _failed(status, EventReason.DEPLOYMENT_TIMED_OUT, message, now)


def _deployed_step(request: PowerRequest, status: RequestStatus, seen: RequestSeen, now: datetime) -> RequestStep:
    deployment, name = seen.deployment, request.deployment_name
    if deployment.progress is DeploymentProgress.READY:
        return RequestStep(status)
    if deployment.progress in (DeploymentProgress.ABSENT, DeploymentProgress.REFUSED):
        return _deleted(status, name, now)
    message = f"{name}: {deployment.message or 'not all of it serves'}"
    status = replace(status, state=RequestState.DEPLOYING)
    status = status.having(ConditionType.DEPLOYMENT_READY, False, "DeploymentDegraded", message, now)
    status = _summed(status, "DeploymentDegraded", message, now)
    return RequestStep(status, (_event(EventReason.DEPLOYMENT_DEGRADED, message, now),))


def _failed_step(request: PowerRequest, status: RequestStatus, seen: RequestSeen, now: datetime) -> RequestStep:
    """It ends here: a request that failed is deleted and made anew."""
    del request, seen, now
    return RequestStep(status)


_STEPS = {
    RequestState.PROFILING: _profiling_step,
    RequestState.READY: _ready_step,
    RequestState.DEPLOYING: _deploying_step,
    RequestState.DEPLOYED: _deployed_step,
    RequestState.DEPLOYMENT_DELETED: _ready_step,
    RequestState.FAILED: _failed_step,
}


def _refused(request: PowerRequest, status: RequestStatus, now: datetime) -> RequestStep | None:
    """For a changed spec: an event the first time, and nothing else for as long as it is changed.

    ``autoApply`` may be switched on while the state is Ready.
    """
    switched = request.auto_apply != status.auto_apply
    allowed = request.auto_apply and status.state is RequestState.READY
    if request.spec_hash == status.spec_hash and (allowed or not switched):
        return None
    return _rejection(f"{request.spec_hash}/{request.auto_apply}", status, now)


def _rejection(changed: str, status: RequestStatus, now: datetime) -> RequestStep:
    if changed == status.rejected:
        return RequestStep(status)
    assert status.state is not None  # noqa: S101 - only a request with a state has a spec that may not change
    message = f"the spec cannot change in state {status.state.value}; delete the request and create it anew"
    return RequestStep(replace(status, rejected=changed), (_event(EventReason.SPEC_CHANGE_REJECTED, message, now),))


def _was_never_valid(status: RequestStatus) -> bool:
    """Failed before any spec was accepted: a corrected one begins anew."""
    return status.state is RequestState.FAILED and not status.spec_hash


def _unreadable(error: RequestError, status: RequestStatus, now: datetime) -> RequestStep:
    if status.state not in (None, RequestState.PENDING) and not _was_never_valid(status):
        return _rejection(f"invalid: {error}"[:200], status, now)
    old = status.condition(ConditionType.VALIDATION)
    if old is not None and not old.holds and old.message == str(error):
        return RequestStep(status)
    status = replace(status, spec_hash="").having(ConditionType.VALIDATION, False, "ValidationFailed", str(error), now)
    return _failed(status, EventReason.VALIDATION_FAILED, str(error), now)


def _deleting(status: RequestStatus, seen: RequestSeen, now: datetime) -> RequestStep:
    """Profiling ends and the outputs go. A deployment that serves stays: it may be in use."""
    actions = []
    if seen.profiling.progress is JobProgress.RUNNING:
        actions.append(RequestAction.STOP_PROFILING)
    elif seen.generated is not None:
        actions.append(RequestAction.REMOVE_OUTPUTS)
    events: tuple[RequestEvent, ...] = ()
    if not status.deleting and status.state is not None:
        stays = seen.deployment.progress not in (DeploymentProgress.ABSENT, DeploymentProgress.REFUSED)
        message = "the deployment stays as it is" if stays else "nothing of it runs"
        events = (_event(EventReason.DELETING, message, now),)
        status = replace(_summed(status, "Deleting", message, now), deleting=True)
    return RequestStep(status, events, tuple(actions) or (RequestAction.RELEASE,))


def _deleted(status: RequestStatus, name: str, now: datetime) -> RequestStep:
    message = f"{name} was deleted; apply it again, or delete the request"
    status = replace(status, state=RequestState.DEPLOYMENT_DELETED)
    status = status.having(ConditionType.DEPLOYMENT_READY, False, "DeploymentDeleted", message, now)
    status = _summed(status, "DeploymentDeleted", message, now)
    return RequestStep(status, (_event(EventReason.DEPLOYMENT_DELETED, message, now),))


def _deploying(status: RequestStatus, message: str, now: datetime) -> RequestStatus:
    status = replace(status, state=RequestState.DEPLOYING)
    old = tuple(one for one in status.conditions if one.type is not ConditionType.DEPLOYMENT_READY)
    # Set anew, so that its time is when this attempt began.
    status = replace(status, conditions=old).having(ConditionType.DEPLOYMENT_READY, False, "Deploying", message, now)
    return _summed(status, "Deploying", message, now)


def _profiling(status: RequestStatus, phase: ProfilingPhase, now: datetime) -> RequestStatus:
    status = status.having(ConditionType.PROFILING, False, phase.value, "profiling", now)
    return _summed(status, "Profiling", phase.value, now)


def _failed(status: RequestStatus, reason: EventReason, message: str, now: datetime) -> RequestStep:
    status = _summed(replace(status, state=RequestState.FAILED, profiling_phase=None), "Failed", message, now)
    return RequestStep(status, (_event(reason, message, now),))


def _summed(status: RequestStatus, reason: str, message: str, now: datetime, *, holds: bool = False) -> RequestStatus:
    return status.having(ConditionType.SUCCEEDED, holds, reason, message, now)


def _event(reason: EventReason, message: str, now: datetime) -> RequestEvent:
    return RequestEvent(reason, message, now)
