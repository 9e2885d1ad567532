"""The states of a request: every path with its states, events and actions, and a controller that is killed anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from planner.profiler.analysis.profiling_phase import ProfilingPhase
from planner.profiler.requests.lifecycle import (
    DeploymentProgress,
    DeploymentSeen,
    JobProgress,
    ProfilingSeen,
    RequestAction,
    RequestSeen,
    RequestStep,
    advance,
)
from planner.profiler.requests.power_request import PowerRequest
from planner.profiler.requests.request_manifest import RequestError, parse_request
from planner.profiler.requests.request_status import (
    ConditionType,
    RequestState,
    RequestStatus,
    status_from_dict,
    status_to_dict,
)
from tests.unit.planner.profiler.requests.request_examples import BETA, alpha, with_value

START = datetime(2026, 11, 26, 12, tzinfo=UTC)
DONE = ProfilingSeen(JobProgress.SUCCEEDED, ProfilingPhase.DONE)
SERVES = DeploymentSeen(DeploymentProgress.READY)
GENERATED = {"kind": "DynamoGraphDeployment"}
SPEC_CHANGED = "SpecChangeRejected"


@dataclass
class RequestCluster:
    """A cluster in small: actions have effects, and everything that is remembered passes through its written form."""

    request: PowerRequest | RequestError
    seen: RequestSeen = field(default_factory=RequestSeen)
    written: dict = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    released: bool = False
    time: datetime = START
    job_ends: ProfilingSeen = DONE
    deployed: DeploymentSeen = SERVES

    @property
    def status(self) -> RequestStatus:
        return status_from_dict(self.written)

    def step(self, *, killed_before_acting: bool = False) -> RequestStep:
        step = advance(self.request, self.status, self.seen, self.time)
        self.time += timedelta(seconds=1)
        self.written = status_to_dict(step.status, name="graph", namespace="chat", job="profile")
        self.events += [event.reason.value for event in step.events]
        if step.status.state is not None and self.states[-1:] != [step.status.state.value]:
            self.states.append(step.status.state.value)
        if not killed_before_acting:
            self._act(step.actions)
        return step

    def run(self, steps: int = 20, *, killed: Callable[[int], bool] = lambda _: False) -> None:
        for number in range(steps):
            self.step(killed_before_acting=killed(number))

    def _act(self, actions: tuple[RequestAction, ...]) -> None:
        for action in actions:
            self.actions.append(action.value)
            match action:
                case RequestAction.START_PROFILING:
                    self.seen = replace(self.seen, profiling=self.job_ends)
                case RequestAction.STOP_PROFILING:
                    self.seen = replace(self.seen, profiling=ProfilingSeen())
                case RequestAction.WRITE_OUTPUTS:
                    self.seen = replace(self.seen, generated=GENERATED)
                case RequestAction.APPLY_DEPLOYMENT:
                    self.seen = replace(self.seen, deployment=self.deployed)
                case RequestAction.REMOVE_OUTPUTS:
                    self.seen = replace(self.seen, generated=None)
                case RequestAction.RELEASE:
                    self.released = True


def condition(cluster: RequestCluster, kind: ConditionType) -> tuple[bool, str]:
    found = cluster.status.condition(kind)
    assert found is not None
    return found.holds, found.reason


WHOLE_WAY = ["Initialized", "ProfilingJobCreated", "SpecGenerated", "DeploymentCreated", "DeploymentReady"]
WHOLE_ACTIONS = ["start_profiling", "write_outputs", "apply_deployment"]


def test_auto_apply_goes_the_whole_way():
    cluster = RequestCluster(alpha(autoApply=True))
    cluster.run()
    assert cluster.states == ["Pending", "Profiling", "Deploying", "Deployed"]
    assert cluster.events == WHOLE_WAY
    assert cluster.actions == WHOLE_ACTIONS
    assert (cluster.written["state"], cluster.written["phase"]) == ("Ready", "Deployed")
    assert cluster.written["generatedDeployment"] == GENERATED
    assert cluster.written["deployment"] == {"name": "graph", "namespace": "chat", "created": True}
    assert [(one["type"], one["status"]) for one in cluster.written["conditions"]] == [
        ("Validation", "True"),
        ("Succeeded", "True"),
        ("Profiling", "True"),
        ("SpecGenerated", "True"),
        ("DeploymentReady", "True"),
    ]


def test_without_auto_apply_it_is_ready_with_what_was_generated():
    cluster = RequestCluster(alpha())
    cluster.run()
    assert cluster.states == ["Pending", "Profiling", "Ready"]
    assert cluster.events == WHOLE_WAY[:3]
    assert "apply_deployment" not in cluster.actions
    assert condition(cluster, ConditionType.SUCCEEDED) == (True, "Ready")


def test_applied_by_hand_after_it_was_ready():
    cluster = RequestCluster(alpha())
    cluster.run()
    cluster.seen = replace(cluster.seen, deployment=DeploymentSeen(DeploymentProgress.STARTING))
    cluster.run(3)
    assert cluster.states[-1] == "Deploying"
    cluster.seen = replace(cluster.seen, deployment=DeploymentSeen(DeploymentProgress.READY))
    cluster.run(3)
    assert cluster.states == ["Pending", "Profiling", "Ready", "Deploying", "Deployed"]
    assert cluster.events == WHOLE_WAY
    assert "apply_deployment" not in cluster.actions


def test_auto_apply_may_be_switched_on_when_it_is_ready():
    cluster = RequestCluster(alpha())
    cluster.run()
    cluster.request = alpha(autoApply=True)
    cluster.run()
    assert cluster.states[-2:] == ["Deploying", "Deployed"]
    assert SPEC_CHANGED not in cluster.events


def test_the_spec_may_change_while_it_is_pending():
    cluster = RequestCluster(alpha(), RequestSeen(gpus=0))
    cluster.run(2)
    cluster.request = alpha(model="another", autoApply=True)
    cluster.seen = RequestSeen(gpus=8)
    cluster.run()
    assert cluster.states[-1] == "Deployed"
    assert cluster.status.spec_hash == cluster.request.spec_hash
    assert SPEC_CHANGED not in cluster.events


CHANGES: dict[str, PowerRequest | RequestError] = {
    "model": alpha(model="another"),
    "autoApply": alpha(autoApply=True),
    "not valid any more": RequestError(["spec.model: missing"]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("state", [RequestState.PROFILING, RequestState.DEPLOYING, RequestState.DEPLOYED])
def test_a_changed_spec_is_rejected_and_nothing_happens(change: str, state: RequestState):
    first = alpha(autoApply=state is not RequestState.PROFILING)
    cluster = RequestCluster(first)
    while cluster.status.state is not state:
        cluster.step()
    cluster.request = CHANGES[change]
    if change == "autoApply" and first.auto_apply:
        cluster.request = alpha(autoApply=False)
    before, done = cluster.status, list(cluster.actions)
    cluster.run(5)
    assert cluster.events.count(SPEC_CHANGED) == 1, "once, not at every step"
    assert cluster.actions == done
    assert replace(cluster.status, rejected="") == before
    cluster.request = first
    cluster.run()
    assert cluster.states[-1] == ("Deployed" if first.auto_apply else "Ready"), "the old spec goes on"


def test_another_change_is_another_event():
    cluster = RequestCluster(alpha())
    cluster.run()
    for model in ("b", "b", "c"):
        cluster.request = alpha(model=model)
        cluster.step()
    assert cluster.events.count(SPEC_CHANGED) == 2


def test_gpus_that_are_missing_keep_it_pending():
    hardware = with_value(BETA, "spec.searchStrategy", "thorough")
    cluster = RequestCluster(parse_request(hardware), RequestSeen(gpus=0))
    cluster.run(4)
    assert cluster.states == ["Pending"]
    assert cluster.events == ["Initialized", "InsufficientGpus"]
    assert cluster.actions == []
    assert condition(cluster, ConditionType.PROFILING) == (False, "InsufficientGpus")
    cluster.seen = RequestSeen(gpus=1)
    cluster.run()
    assert cluster.states[-1] == "Deployed"


def test_offline_sizing_needs_no_gpu():
    cluster = RequestCluster(parse_request(with_value(BETA, "spec.searchStrategy", "rapid")), RequestSeen(gpus=0))
    cluster.run()
    assert cluster.states[-1] == "Deployed"


@pytest.mark.parametrize(
    ("strategy", "reason"), [("thorough", "ProfilingJobFailed"), ("rapid", "AIConfiguratorFailed")]
)
def test_profiling_that_fails(strategy: str, reason: str):
    ends = ProfilingSeen(JobProgress.FAILED, ProfilingPhase.SWEEPING_DECODE, "the engine ended")
    cluster = RequestCluster(parse_request(with_value(BETA, "spec.searchStrategy", strategy)), job_ends=ends)
    cluster.run()
    assert cluster.states == ["Pending", "Profiling", "Failed"]
    assert cluster.events == ["Initialized", "ProfilingJobCreated", reason]
    assert cluster.actions == ["start_profiling"]
    assert condition(cluster, ConditionType.PROFILING) == (False, "SweepingDecodeFailed")
    assert condition(cluster, ConditionType.SUCCEEDED) == (False, "Failed")


def test_the_phases_of_profiling_are_shown():
    cluster = RequestCluster(alpha(), job_ends=ProfilingSeen(JobProgress.RUNNING, ProfilingPhase.INITIALIZING))
    cluster.run(3)
    shown = []
    for phase in (ProfilingPhase.SWEEPING_PREFILL, ProfilingPhase.SWEEPING_DECODE, ProfilingPhase.SELECTING_CONFIG):
        cluster.seen = RequestSeen(profiling=ProfilingSeen(JobProgress.RUNNING, phase))
        cluster.step()
        shown.append((cluster.written["profilingPhase"], condition(cluster, ConditionType.PROFILING)))
    assert shown == [(name, (False, name)) for name in ("SweepingPrefill", "SweepingDecode", "SelectingConfig")]


def test_targets_that_no_size_meets_are_an_event():
    cluster = RequestCluster(alpha(), job_ends=replace(DONE, unmet=("No TP size meets the TTFT target of 200 ms",)))
    cluster.run()
    assert cluster.events == ["Initialized", "ProfilingJobCreated", "SlaNotMet", "SpecGenerated"]


def test_an_invalid_request_fails():
    cluster = RequestCluster(RequestError(["spec.model: missing"]))
    cluster.run(3)
    assert (cluster.states, cluster.events) == (["Failed"], ["ValidationFailed"])
    assert condition(cluster, ConditionType.VALIDATION) == (False, "ValidationFailed")
    cluster.request = RequestError(["spec.backend: missing"])
    cluster.run(3)
    assert cluster.events == ["ValidationFailed", "ValidationFailed"], "another mistake is another event"
    cluster.request = alpha()
    cluster.run()
    assert cluster.states == ["Failed", "Pending", "Profiling", "Ready"], "a corrected spec begins anew"


def test_a_deployment_that_is_refused():
    cluster = RequestCluster(alpha(autoApply=True), deployed=DeploymentSeen(DeploymentProgress.FAILED, "quota"))
    cluster.run()
    assert cluster.states[-1] == "Failed"
    assert cluster.events[-2:] == ["DeploymentCreated", "DeploymentFailed"]


def test_a_deployment_that_never_serves_is_not_waited_for_forever():
    cluster = RequestCluster(alpha(autoApply=True), deployed=DeploymentSeen(DeploymentProgress.STARTING))
    cluster.run()
    assert cluster.states[-1] == "Deploying"
    cluster.time += timedelta(seconds=1801)
    cluster.step()
    assert (cluster.states[-1], cluster.events[-1]) == ("Failed", "DeploymentTimedOut")


def test_a_deployment_that_degrades_recovers_or_is_deleted():
    cluster = RequestCluster(alpha(autoApply=True))
    cluster.run()
    cluster.seen = replace(cluster.seen, deployment=DeploymentSeen(DeploymentProgress.STARTING, "1 of 2 serve"))
    cluster.run(2)
    assert (cluster.states[-1], cluster.events[-1]) == ("Deploying", "DeploymentDegraded")
    cluster.time += timedelta(hours=2)
    cluster.run(2)
    assert cluster.states[-1] == "Deploying", "one that served before has all the time that it needs"
    cluster.seen = replace(cluster.seen, deployment=DeploymentSeen(DeploymentProgress.READY))
    cluster.run(2)
    assert (cluster.states[-1], cluster.events[-1]) == ("Deployed", "DeploymentReady")
    cluster.seen = replace(cluster.seen, deployment=DeploymentSeen())
    cluster.run(3)
    assert (cluster.states[-1], cluster.events[-1]) == ("DeploymentDeleted", "DeploymentDeleted")
    assert (cluster.written["state"], cluster.written["phase"]) == ("DeploymentDeleted", "Ready")
    assert cluster.actions.count("apply_deployment") == 1, "what a person deleted is not made again"


@pytest.mark.parametrize("steps", range(12))
def test_deleted_at_any_time(steps: int):
    cluster = RequestCluster(alpha(autoApply=True), job_ends=ProfilingSeen(JobProgress.RUNNING))
    for number in range(steps):
        if number == 4:
            cluster.seen = replace(cluster.seen, profiling=DONE)
        cluster.step()
    profiled, deployment = cluster.seen.profiling.progress, cluster.seen.deployment
    before = len(cluster.actions)
    cluster.seen = replace(cluster.seen, deleting=True)
    cluster.run(4)
    assert cluster.released
    assert cluster.events.count("Deleting") == min(steps, 1)
    wanted = ["stop_profiling"] if profiled is JobProgress.RUNNING else []
    wanted += ["remove_outputs"] if "write_outputs" in cluster.actions[:before] else []
    assert [one for one in cluster.actions[before:] if one != "release"] == wanted
    assert cluster.seen.deployment == deployment, "what serves is not touched"


@pytest.mark.parametrize("auto_apply", [False, True])
@pytest.mark.parametrize("killed_at", range(8))
def test_a_controller_that_is_killed_before_it_acts_goes_on(killed_at: int, auto_apply: bool):
    calm, cluster = RequestCluster(alpha(autoApply=auto_apply)), RequestCluster(alpha(autoApply=auto_apply))
    calm.run()
    cluster.run(killed=lambda number: number == killed_at)
    assert (cluster.states, cluster.events, cluster.actions) == (calm.states, calm.events, calm.actions)


def test_nothing_more_happens_when_it_is_settled():
    cluster = RequestCluster(alpha(autoApply=True))
    cluster.run()
    step = cluster.step()
    assert (step.status, step.events, step.actions) == (cluster.status, (), ())


def test_a_status_that_is_not_one_is_refused():
    with pytest.raises(ValueError, match="not a request's status"):
        status_from_dict({"state": "Ready"})


def test_the_cost_of_energy_is_in_the_event() -> None:
    cluster = RequestCluster(alpha(), job_ends=replace(DONE, cost="it costs much"))
    said = []
    for _ in range(20):
        said += [event.message for event in cluster.step().events]
    assert [message for message in said if message.endswith("; it costs much")], said
