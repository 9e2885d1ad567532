"""Reading requests: each form as its guide writes it, and each kind of mistake in one line with its path."""

from __future__ import annotations

from typing import Any

import pytest

from planner.profiler.analysis.recommendation import Targets
from planner.profiler.requests.power_request import OfflineSizing, PowerTerms, RequestedLoad, RequestForm
from planner.profiler.requests.request_manifest import RequestError, parse_request
from tests.unit.planner.profiler.requests.request_examples import ALPHA, BETA, OWN, with_value

CONFIG = "spec.profilingConfig.config"


def test_the_first_guide_s_request():
    request = parse_request(ALPHA)
    assert request.form is RequestForm.V1ALPHA1
    assert (request.name, request.namespace, request.job_name) == ("sla-aic", "chat", "profile-sla-aic")
    assert request.targets == Targets(3000, 150, 200.0, 20.0)
    assert (request.auto_apply, request.mocker, request.offline, request.power) == (False, False, None, None)
    assert request.planner == {"plannerMinEndpoint": 2}
    assert request.overrides.workers_image.endswith("vllm-runtime:0.6.1")
    assert request.gpus_needed == 1
    assert request.labels == {"dgdr.nvidia.com/name": "sla-aic", "dgdr.nvidia.com/namespace": "chat"}
    assert request.output_name == "dgdr-output-sla-aic"


def test_the_first_guide_s_offline_sweep():
    sweep = {"useAiConfigurator": True, "aicSystem": "h200_sxm", "aicBackendVersion": "0.20.0"}
    request = parse_request(with_value(ALPHA, f"{CONFIG}.sweep", sweep))
    assert request.offline == OfflineSizing("h200_sxm", "Qwen/Qwen3-32B", "vllm", "0.20.0")
    assert request.gpus_needed == 0


def test_the_profiler_s_keys_in_snake_case_and_zero_for_unset():
    request = parse_request(
        with_value(
            with_value(ALPHA, f"{CONFIG}.hardware", {"min_num_gpus_per_engine": 2, "maxNumGpusPerEngine": 0}),
            f"{CONFIG}.engine",
            {"max_context_length": 8192},
        )
    )
    assert (request.hardware.min_gpus_per_engine, request.hardware.max_gpus_per_engine) == (2, None)
    assert request.max_context == 8192
    assert request.gpus_needed == 2


def test_v1beta1():
    request = parse_request(BETA)
    assert request.form is RequestForm.V1BETA1
    assert (request.backend, request.engine, request.namespace) == ("auto", "vllm", "default")
    assert request.auto_apply, "only an explicit false switches it off"
    assert request.load == RequestedLoad(requests_per_s=4.0)
    assert request.planner == {"min_endpoint": 2}
    assert request.offline is None


def test_v1beta1_s_defaults():
    request = parse_request({**BETA, "spec": {"model": "m", "autoApply": False}})
    assert request.targets == Targets(4000, 1000, 2000.0, 30.0)
    assert request.offline == OfflineSizing(None, "m", "vllm", None), "rapid sizes offline"
    assert (request.auto_apply, request.planner) == (False, None)


def test_our_own_kind():
    request = parse_request(OWN)
    assert request.power == PowerTerms(4000, 0.21, "goodput_per_watt")
    assert request.output_claim == "dynamo-pvc"


def test_the_hash_is_that_of_the_spec_without_auto_apply():
    request = parse_request(ALPHA)
    reordered = {**ALPHA, "spec": dict(reversed(ALPHA["spec"].items()))}
    assert parse_request(reordered).spec_hash == request.spec_hash
    assert parse_request(with_value(ALPHA, "spec.autoApply", True)).spec_hash == request.spec_hash
    assert parse_request(with_value(ALPHA, "metadata.labels", {"a": "b"})).spec_hash == request.spec_hash
    assert parse_request(with_value(ALPHA, "spec.model", "other")).spec_hash != request.spec_hash


MISTAKES: list[tuple[dict[str, Any], str, Any, str]] = [
    (ALPHA, "kind", "Pod", "kind: 'Pod' is not a request; known: DynamoGraphDeploymentRequest, InferencePowerRequest"),
    (
        ALPHA,
        "apiVersion",
        "nvidia.com/v1",
        "apiVersion: 'nvidia.com/v1' of DynamoGraphDeploymentRequest is not known; ",
    ),
    (ALPHA, "spec", ..., "spec: missing"),
    (ALPHA, "sepc", {}, "sepc: unknown key; did you mean 'spec'?"),
    (ALPHA, "metadata.name", ..., "metadata.name: missing"),
    (ALPHA, "metadata.name", "Big Name", "metadata.name: 'Big Name' is not a name: lower-case letters, digits and -, "),
    (ALPHA, "metadata.name", "a" * 49, "metadata.name: string should have at most 48 characters"),
    (ALPHA, "metadata.nmae", "a", "metadata.nmae: unknown key; did you mean 'name'?"),
    (ALPHA, "spec.model", ..., "spec.model: missing"),
    (ALPHA, "spec.model", "", "spec.model: "),
    (ALPHA, "spec.model", 7, "spec.model: input should be a valid string"),
    (ALPHA, "spec.modle", "m", "spec.modle: unknown key; did you mean 'model'?"),
    (ALPHA, "spec.backend", "auto", "spec.backend: input should be 'vllm', 'sglang' or 'trtllm'"),
    (ALPHA, "spec.autoApply", "yes", "spec.autoApply: input should be a valid boolean"),
    (ALPHA, "spec.auto_apply", True, "spec.auto_apply: unknown key; did you mean 'autoApply'?"),
    (ALPHA, "spec.profilingConfig.profilerImage", ..., "spec.profilingConfig.profilerImage: missing"),
    (ALPHA, f"{CONFIG}.sla", ..., f"{CONFIG}.sla: missing"),
    (ALPHA, f"{CONFIG}.sla.ttft", 0, f"{CONFIG}.sla.ttft: input should be greater than 0"),
    (ALPHA, f"{CONFIG}.sla.ttft", float("nan"), f"{CONFIG}.sla.ttft: input should be a finite number"),
    (ALPHA, f"{CONFIG}.sla.itl", "20", f"{CONFIG}.sla.itl: input should be a valid number"),
    (ALPHA, f"{CONFIG}.sla.isl", 2.5, f"{CONFIG}.sla.isl: input should be a valid integer"),
    (ALPHA, f"{CONFIG}.sla.isl", True, f"{CONFIG}.sla.isl: input should be a valid integer"),
    (ALPHA, f"{CONFIG}.sla.tttf", 5, f"{CONFIG}.sla.tttf: unknown key; did you mean 'ttft'?"),
    (ALPHA, f"{CONFIG}.sweep.useAiConfigurator", True, f"{CONFIG}.sweep: useAiConfigurator needs aicSystem, such as "),
    (ALPHA, f"{CONFIG}.sweep.aicSystem", "h200_sxm", f"{CONFIG}.sweep: aicSystem, aicHfId and aicBackendVersion go "),
    (ALPHA, f"{CONFIG}.sweep.dryRun", True, f"{CONFIG}.sweep.dryRun: dryRun is not supported here; leave autoApply "),
    (
        *(ALPHA, f"{CONFIG}.hardware", {"minNumGpusPerEngine": 4, "maxNumGpusPerEngine": 2}),
        f"{CONFIG}.hardware: minNumGpusPerEngine 4 is above maxNumGpusPerEngine 2",
    ),
    (
        ALPHA,
        "spec.deploymentOverrides.lables",
        {},
        "spec.deploymentOverrides.lables: unknown key; did you mean 'labels'?",
    ),
    (
        *(ALPHA, f"{CONFIG}.sweep.prefillInterpolationGranularity", 8),
        f"{CONFIG}.sweep.prefillInterpolationGranularity: prefillInterpolationGranularity is 16 here, as by default ",
    ),
    (BETA, "spec.hardware.gpuSku", "h300", "spec.hardware.gpuSku: input should be 'vr_nvl72', "),
    (BETA, "spec.workload.concurrency", 4.0, "spec.workload: give concurrency or requestRate, not both"),
    (BETA, "spec.sla.e2eLatency", 900.0, "spec.sla.e2eLatency: e2eLatency is not supported here; give ttft and itl"),
    (BETA, "spec.overrides.dgd", {"kind": "Pod"}, "spec.overrides.dgd: kind must be DynamoGraphDeployment"),
    (BETA, "spec.powerBudgetWatts", 4000, "spec.powerBudgetWatts: unknown key; known: model, "),
    (OWN, "spec.powerBudgetWatts", -1, "spec.powerBudgetWatts: input should be greater than 0"),
    (OWN, "spec.objective", "cheap", "spec.objective: input should be 'throughput', 'latency' or 'goodput_per_watt'"),
    (OWN, "spec.sla.optimizationType", "latency", "spec: objective and sla.optimizationType differ; give objective "),
]


@pytest.mark.parametrize(
    ("manifest", "path", "value", "line"), MISTAKES, ids=[f"{p}={v}"[:60] for _, p, v, _ in MISTAKES]
)
def test_a_mistake_is_one_line_with_its_path(manifest: dict[str, Any], path: str, value: Any, line: str):
    with pytest.raises(RequestError) as caught:
        parse_request(with_value(manifest, path, value))
    assert [problem[: len(line)] for problem in caught.value.problems] == [line]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, [], "text", 7])
def test_what_is_no_mapping_is_refused(content: Any):
    with pytest.raises(RequestError, match="the file: not a mapping"):
        parse_request(content)


def test_several_mistakes_are_a_line_each():
    broken = with_value(with_value(ALPHA, "spec.model", ...), "spec.backend", "vlm")
    with pytest.raises(RequestError) as caught:
        parse_request(broken)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["spec.model", "spec.backend"]
