"""How far a request has come, as it is written down: states, conditions, events. Both of Dynamo's vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from planner.profiler.analysis.profiling_phase import ProfilingPhase


class RequestState(StrEnum):
    """v1beta1's phases, and the one state of v1alpha1 that those lack."""

    PENDING = "Pending"
    PROFILING = "Profiling"
    READY = "Ready"
    """The deployment is generated, and waits to be applied."""
    DEPLOYING = "Deploying"
    DEPLOYED = "Deployed"
    DEPLOYMENT_DELETED = "DeploymentDeleted"
    FAILED = "Failed"

    @property
    def v1alpha1(self) -> str:
        """v1alpha1's ``status.state``: a deployment that runs is Ready there too."""
        return "Ready" if self is RequestState.DEPLOYED else self.value

    @property
    def v1beta1(self) -> str:
        """v1beta1's ``status.phase``."""
        return "Ready" if self is RequestState.DEPLOYMENT_DELETED else self.value


class ConditionType(StrEnum):
    """Dynamo's conditions; ``SUCCEEDED`` sums the others up."""

    SUCCEEDED = "Succeeded"
    VALIDATION = "Validation"
    PROFILING = "Profiling"
    SPEC_GENERATED = "SpecGenerated"
    DEPLOYMENT_READY = "DeploymentReady"


class EventReason(StrEnum):
    """Dynamo's event reasons, and after them ours."""

    INITIALIZED = "Initialized"
    VALIDATION_FAILED = "ValidationFailed"
    PROFILING_JOB_CREATED = "ProfilingJobCreated"
    PROFILING_JOB_FAILED = "ProfilingJobFailed"
    AI_CONFIGURATOR_FAILED = "AIConfiguratorFailed"
    SPEC_GENERATED = "SpecGenerated"
    SPEC_CHANGE_REJECTED = "SpecChangeRejected"
    DEPLOYMENT_CREATED = "DeploymentCreated"
    DEPLOYMENT_READY = "DeploymentReady"
    DEPLOYMENT_DEGRADED = "DeploymentDegraded"
    DEPLOYMENT_DELETED = "DeploymentDeleted"
    INSUFFICIENT_GPUS = "InsufficientGpus"
    SLA_NOT_MET = "SlaNotMet"
    DEPLOYMENT_FAILED = "DeploymentFailed"
    DEPLOYMENT_TIMED_OUT = "DeploymentTimedOut"
    DELETING = "Deleting"


WARNINGS = frozenset(
    {
        EventReason.VALIDATION_FAILED,
        EventReason.PROFILING_JOB_FAILED,
        EventReason.AI_CONFIGURATOR_FAILED,
        EventReason.SPEC_CHANGE_REJECTED,
        EventReason.DEPLOYMENT_DEGRADED,
        EventReason.DEPLOYMENT_DELETED,
        EventReason.INSUFFICIENT_GPUS,
        EventReason.SLA_NOT_MET,
        EventReason.DEPLOYMENT_FAILED,
        EventReason.DEPLOYMENT_TIMED_OUT,
    }
)


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """Something that happened, once."""

    reason: EventReason
    message: str
    at: datetime

    @property
    def type(self) -> Literal["Normal", "Warning"]:
        """Kubernetes' two kinds of event."""
        return "Warning" if self.reason in WARNINGS else "Normal"

    def to_dict(self) -> dict[str, str]:
        """One line of a log of events."""
        return {"at": _text(self.at), "type": self.type, "reason": self.reason.value, "message": self.message}


@dataclass(frozen=True, slots=True)
class RequestCondition:
    """One condition. ``since``: when ``holds`` last changed."""

    type: ConditionType
    holds: bool
    reason: str
    message: str
    since: datetime


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """All that is remembered between two steps.

    ``spec_hash`` and ``auto_apply``: the spec that is carried out. ``rejected``: the changed spec that the newest event
    refused. ``applied``: the deployment was seen at least once.
    """

    state: RequestState | None = None
    profiling_phase: ProfilingPhase | None = None
    observed_generation: int = 0
    spec_hash: str = ""
    auto_apply: bool = False
    rejected: str = ""
    applied: bool = False
    deleting: bool = False
    generated: Mapping[str, Any] | None = None
    conditions: tuple[RequestCondition, ...] = ()

    def condition(self, kind: ConditionType) -> RequestCondition | None:
        """The condition of a type, where it was set."""
        return next((one for one in self.conditions if one.type is kind), None)

    def having(self, kind: ConditionType, holds: bool, reason: str, message: str, now: datetime) -> RequestStatus:
        """With a condition set; its time changes only when ``holds`` does."""
        old = self.condition(kind)
        since = old.since if old is not None and old.holds == holds else now
        new = RequestCondition(kind, holds, reason, message, since)
        if old is None:
            return replace(self, conditions=(*self.conditions, new))
        return replace(self, conditions=tuple(new if one is old else one for one in self.conditions))


def status_to_dict(status: RequestStatus, *, name: str = "", namespace: str = "", job: str = "") -> dict[str, Any]:
    """The ``status`` of an object: v1alpha1's keys and v1beta1's side by side. ``name``: of the deployment."""
    if status.state is None:
        return {}
    profiled = status.generated is not None
    begun = status.state is not RequestState.PENDING and status.profiling_phase is not None
    found: dict[str, Any] = {
        "state": status.state.v1alpha1,
        "phase": status.state.v1beta1,
        "stage": status.state.value,
        "profilingPhase": status.profiling_phase.value if status.profiling_phase else None,
        "observedGeneration": status.observed_generation,
        "specHash": status.spec_hash,
        "autoApply": status.auto_apply,
        "rejectedSpec": status.rejected or None,
        "deleting": status.deleting or None,
        "profilingJobName": job if job and (begun or profiled) else None,
        "profilingResults": {"selectedConfig": status.generated} if profiled else None,
        "generatedDeployment": status.generated,
        "dgdName": name if name and profiled else None,
        "deployment": {"name": name, "namespace": namespace, "created": True} if status.applied else None,
        "conditions": [_condition_to_dict(one, status.observed_generation) for one in status.conditions],
    }
    return {key: value for key, value in found.items() if value is not None}


def status_from_dict(found: Mapping[str, Any]) -> RequestStatus:
    """What `status_to_dict` wrote. Raises ValueError for anything else."""
    if not found:
        return RequestStatus()
    try:
        phase = found.get("profilingPhase")
        return RequestStatus(
            state=RequestState(found["stage"]),
            profiling_phase=None if phase is None else ProfilingPhase(phase),
            observed_generation=int(found["observedGeneration"]),
            spec_hash=str(found["specHash"]),
            auto_apply=bool(found["autoApply"]),
            rejected=str(found.get("rejectedSpec") or ""),
            applied="deployment" in found,
            deleting=bool(found.get("deleting", False)),
            generated=found.get("generatedDeployment"),
            conditions=tuple(_condition_from_dict(one) for one in found["conditions"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a request's status: {error!r}") from None


def _condition_to_dict(one: RequestCondition, generation: int) -> dict[str, Any]:
    return {
        "type": one.type.value,
        "status": "True" if one.holds else "False",
        "reason": one.reason,
        "message": one.message,
        "lastTransitionTime": _text(one.since),
        "observedGeneration": generation,
    }


def _condition_from_dict(found: Mapping[str, Any]) -> RequestCondition:
    since = datetime.fromisoformat(found["lastTransitionTime"])
    kind = ConditionType(found["type"])
    return RequestCondition(kind, found["status"] == "True", found["reason"], found["message"], since)


def _text(at: datetime) -> str:
    """RFC 3339 in UTC, in whole seconds as Kubernetes writes it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
