"""The table of requests in a cluster: every state, event and object, with a controller that is stepped by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.requests.request_site import (
    EVENTS,
    GRAPHS,
    JOBS,
    MAPS,
    NAME,
    NAMESPACE,
    REQUESTS,
    SPEC,
    request_site,
)

BEGUN = ["Initialized", "ProfilingJobCreated"]
READY = [*BEGUN, "SpecGenerated"]
CREATED = [*READY, "DeploymentCreated"]
SERVES = [*CREATED, "DeploymentReady"]
OUTPUTS = f"dgdr-output-{NAME}"


async def test_from_a_request_to_a_graph_that_serves_by_auto_apply(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request(autoApply=True, powerBudgetWatts=6000)
        await site.step()
        assert (site.stage(), site.reasons()) == ("Profiling", BEGUN)
        assert site.status()["profilingJobName"] == f"profile-{NAME}-tp1"
        job = site.double.find(*JOBS, NAMESPACE, f"profile-{NAME}-tp1")
        engine, _, profiler = job["spec"]["template"]["spec"]["initContainers"]
        assert engine["restartPolicy"] == "Always", "a sidecar"
        assert engine["resources"]["limits"] == {"nvidia.com/gpu": "1"}
        assert profiler["args"][:5] == ["profile", "--isl", "3000", "--osl", "150"]
        assert profiler["args"][-4:] == ["--tp", "1", "--endpoint", "http://127.0.0.1:8000"]
        await site.step()
        assert site.names(JOBS) == [f"profile-{NAME}-tp1"], "once"

        await site.ends(1)
        await site.step()
        assert (site.stage(), site.reasons()) == ("Deploying", CREATED)
        graph = site.double.find(*GRAPHS, NAMESPACE, NAME)
        assert graph["metadata"]["labels"] == {
            "dgdr.nvidia.com/name": NAME,
            "dgdr.nvidia.com/namespace": NAMESPACE,
        }
        generated = site.status()["generatedDeployment"]
        assert generated["spec"] == graph["spec"]
        assert yaml.safe_load(site.map(OUTPUTS)["data"]["config_with_planner.yaml"]) == generated
        planner = yaml.safe_load(site.map(OUTPUTS)["data"]["planner.yaml"])
        assert planner["sites"][NAME]["budget_watts"] == 6000
        assert planner["deployments"][f"{NAMESPACE}-{NAME}"]["gpu"] == "h200", "as the node's label says"
        assert set(site.map("planner-profile-data")["data"]) == {
            "prefill_raw_data.json",
            "decode_raw_data.json",
            "meta.json",
        }

        await site.graph_is("pending", "pods start")
        await site.step()
        assert (site.stage(), site.reasons()) == ("Deploying", CREATED)
        await site.graph_is("successful")
        await site.step()
        assert (site.stage(), site.reasons()) == ("Deployed", SERVES)
        conditions = {one["type"]: one["status"] for one in site.status()["conditions"]}
        kinds = ("Validation", "Succeeded", "Profiling", "SpecGenerated", "DeploymentReady")
        assert conditions == dict.fromkeys(kinds, "True")

        await site.graph_is("pending", "a pod is lost")
        await site.step()
        assert (site.stage(), site.reasons()[-1]) == ("Deploying", "DeploymentDegraded")
        await site.double.remove(*GRAPHS, NAMESPACE, NAME)
        await site.step()
        assert (site.stage(), site.reasons()[-1]) == ("DeploymentDeleted", "DeploymentDeleted")
        assert site.names(GRAPHS) == [], "it is not made again"
        about = {one["involvedObject"]["name"] for one in site.events()}
        assert about == {NAME}
        assert not any("deploymentrequests" in path for _, path in site.double.requests), (
            "Dynamo's requests are Dynamo's"
        )


async def test_without_dynamo_plain_objects_are_made(tmp_path: Path) -> None:
    async with request_site(tmp_path, dynamo=False) as site:
        await site.request(autoApply=True)
        await site.step()
        await site.ends(1)
        await site.step()
        deployment = site.double.find("apps", "deployments", NAMESPACE, NAME)
        assert site.names(("", "services")) == [NAME]
        assert site.status()["generatedDeployment"]["kind"] == "List"
        job = site.double.find(*JOBS, NAMESPACE, f"profile-{NAME}-tp1")
        engine = job["spec"]["template"]["spec"]["initContainers"][0]
        served = deployment["spec"]["template"]["spec"]["containers"][0]
        assert (engine["image"], engine["command"]) == (served["image"], served["command"]), "what was profiled"
        assert site.stage() == "Deploying"
        generation = deployment["metadata"]["generation"]
        status = {"observedGeneration": generation, "availableReplicas": deployment["spec"]["replicas"]}
        await site.double.put("apps", "deployments", {**deployment, "status": status})
        await site.step()
        assert (site.stage(), site.reasons()) == ("Deployed", SERVES)


async def test_applied_by_hand_where_auto_apply_is_off(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request()
        await site.step()
        await site.ends(1)
        await site.step()
        assert (site.stage(), site.reasons()) == ("Ready", READY)
        assert site.names(GRAPHS) == []
        await site.double.put(*GRAPHS, site.status()["generatedDeployment"])
        await site.step()
        assert (site.stage(), site.reasons()) == ("Deploying", CREATED)
        await site.graph_is("successful")
        await site.step()
        assert (site.stage(), site.reasons()) == ("Deployed", SERVES)


async def test_auto_apply_is_switched_on_when_it_is_ready(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request()
        await site.step()
        await site.ends(1)
        await site.step()
        await site.change(autoApply=True)
        await site.step()
        assert (site.stage(), site.reasons(), site.names(GRAPHS)) == ("Deploying", CREATED, [NAME])
        site.later_s = 1801
        await site.step()
        assert (site.stage(), site.reasons()) == ("Failed", [*CREATED, "DeploymentTimedOut"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modle": "x"}, "spec.modle: unknown key; did you mean 'model'?"),
        ({"backend": "vlm"}, "spec.backend: input should be 'auto', 'vllm', 'sglang' or 'trtllm'"),
        ({"model": None}, "spec.model: missing"),
        ({"sla": {"ttft": 0}}, "spec.sla.ttft: input should be greater than 0"),
        ({"sla": {"ttft": "fast"}}, "spec.sla.ttft: input should be a valid number"),
        ({"powerBudgetWatts": -1}, "spec.powerBudgetWatts: input should be greater than 0"),
        ({"objective": "latency", "sla": {"optimizationType": "throughput"}}, "spec: objective and sla.optimization"),
        ({"hardware": {"vramMb": 80000}}, "spec.hardware.vramMb: vramMb is not supported here"),
    ],
)
async def test_an_invalid_spec_says_what_is_wrong_and_may_be_corrected(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    async with request_site(tmp_path) as site:
        await site.request(**change)
        await site.step()
        await site.step()
        assert (site.stage(), site.reasons()) == ("Failed", ["ValidationFailed"])
        assert said in site.events()[0]["message"]
        assert site.names(JOBS) == []
        item = site.double.find(*REQUESTS, NAMESPACE, NAME)
        await site.double.put(*REQUESTS, {**item, "spec": SPEC})
        await site.step()
        assert (site.stage(), site.reasons()[-2:]) == ("Profiling", BEGUN)


async def test_a_spec_changed_after_profiling_began_is_rejected_once(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request()
        await site.step()
        await site.change(model="another/model")
        await site.step()
        await site.ends(1)
        await site.step()
        assert (site.stage(), site.reasons()) == ("Profiling", [*BEGUN, "SpecChangeRejected"])
        await site.change(model=SPEC["model"], backend="nothing")
        await site.step()
        assert site.reasons() == [*BEGUN, "SpecChangeRejected", "SpecChangeRejected"], "another change"
        await site.change(backend="vllm")
        await site.step()
        assert (site.stage(), site.reasons()[-1]) == ("Ready", "SpecGenerated"), "changed back, it goes on"


async def test_deleted_in_the_middle_nothing_is_left(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request(outputPVC="plots")
        await site.step()
        job = site.double.find(*JOBS, NAMESPACE, f"profile-{NAME}-tp1")
        pod = job["spec"]["template"]["spec"]
        assert pod["volumes"][0] == {"name": "results", "persistentVolumeClaim": {"claimName": "plots"}}
        assert pod["containers"][0]["volumeMounts"][0]["subPath"] == f"{NAME}/profile-{NAME}-tp1"
        await site.delete()
        assert site.names(REQUESTS) == [NAME], "held until all is removed"
        await site.step()
        assert (site.names(REQUESTS), site.names(JOBS), site.names(MAPS)) == ([], [], [])
        assert site.reasons() == [*BEGUN, "Deleting"]
        await site.step()


async def test_deleted_when_it_serves_its_graph_stays(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request(autoApply=True)
        await site.step()
        await site.ends(1)
        await site.step()
        await site.graph_is("successful")
        await site.step()
        await site.delete()
        await site.step()
        assert (site.names(REQUESTS), site.names(JOBS), site.names(MAPS)) == ([], [], [])
        assert site.names(GRAPHS) == [NAME]
        assert site.events()[-1]["message"] == "the deployment stays as it is"


async def test_an_invalid_request_can_be_deleted(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request(backend="vlm")
        await site.step()
        await site.delete()
        await site.step()
        assert site.names(REQUESTS) == []


async def test_profiling_that_fails_is_the_end_and_says_why(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request(autoApply=True)
        await site.step()
        await site.fails(1, "the engine does not serve 'Qwen/Qwen3-32B'")
        await site.step()
        await site.step()
        assert (site.stage(), site.reasons()) == ("Failed", [*BEGUN, "ProfilingJobFailed"])
        said = f"Job profile-{NAME}-tp1, profile: wattscale: the engine does not serve 'Qwen/Qwen3-32B'"
        assert site.events()[-1]["message"] == said
        assert site.events()[-1]["type"] == "Warning"
        assert site.names(GRAPHS) == []


async def test_sizes_are_profiled_one_after_the_other_and_the_best_is_taken(tmp_path: Path) -> None:
    async with request_site(tmp_path, gpus=4) as site:
        await site.request(hardware={})
        await site.step()
        assert site.names(JOBS) == [f"profile-{NAME}-tp1"]
        await site.fails(1, "the model does not fit")
        await site.step()
        assert site.names(JOBS) == [f"profile-{NAME}-tp1", f"profile-{NAME}-tp2"], "a size that fails is left out"
        await site.node("n2", 8)
        await site.ends(2)
        await site.step()
        assert site.names(JOBS)[-1] == f"profile-{NAME}-tp4"
        await site.ends(4)
        await site.step()
        assert (site.stage(), site.reasons()) == ("Ready", READY), "8 is not one of the sizes that were begun with"
        arguments = site.status()["generatedDeployment"]["spec"]["components"][-1]["podTemplate"]["spec"]["containers"]
        words = arguments[0]["args"]
        # Both are as fast, and the smaller gives more for each GPU.
        assert words[words.index("--tensor-parallel-size") + 1] == "2"


async def test_without_gpus_it_stays_pending_until_a_node_comes(tmp_path: Path) -> None:
    async with request_site(tmp_path, gpus=0) as site:
        await site.node("broken", 8, ready=False)
        await site.request()
        await site.step()
        await site.step()
        assert (site.stage(), site.reasons()) == ("Pending", ["Initialized", "InsufficientGpus"])
        assert site.events()[-1]["message"] == "profiling needs 1 GPUs, and there are 0"
        await site.change(workload={"isl": 2000})
        await site.node("n1", 1)
        await site.step()
        assert site.stage() == "Profiling"
        job = site.double.find(*JOBS, NAMESPACE, f"profile-{NAME}-tp1")
        assert "2000" in job["spec"]["template"]["spec"]["initContainers"][-1]["args"], "Pending, it may change"


async def test_offline_sizing_takes_the_type_from_the_nodes_and_no_gpu(tmp_path: Path) -> None:
    async with request_site(tmp_path, gpus=0) as site:
        await site.node("n1", 8, "NVIDIA-H100-80GB-HBM3")
        await site.request(searchStrategy="rapid")
        await site.step()
        (job,) = site.double.objects(*JOBS)
        (profiler,) = job["spec"]["template"]["spec"]["initContainers"]
        assert profiler["image"] == "wattscale/offline:1"
        offline = profiler["args"][profiler["args"].index("--offline") :]
        assert offline == [
            *("--offline", "--system", "h100_sxm", "--model", "Qwen/Qwen3-32B", "--backend", "vllm"),
            *("--tp", "1"),
        ], "numGpusPerNode of the request is a bound"
        await site.ends(0)
        await site.step()
        assert (site.stage(), site.reasons()) == ("Ready", READY)


async def test_offline_sizing_of_an_unknown_type_fails(tmp_path: Path) -> None:
    async with request_site(tmp_path, gpus=0) as site:
        await site.request(searchStrategy="rapid")
        await site.step()
        assert (site.stage(), site.reasons()) == ("Failed", [*BEGUN, "AIConfiguratorFailed"])
        assert "set spec.hardware.gpuSku" in site.events()[-1]["message"]


async def test_names_that_are_taken_are_refused_and_left_alone(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        theirs = {"metadata": {"name": OUTPUTS, "namespace": NAMESPACE}, "data": {"a": "b"}}
        await site.double.put(*MAPS, theirs)
        await site.request()
        await site.step()
        assert (site.stage(), site.names(JOBS)) == ("Failed", []), "before anything is profiled"
        assert f"ConfigMap {OUTPUTS} is not this request's" in site.events()[-1]["message"]
        await site.delete()
        await site.step()
        assert (site.names(REQUESTS), site.map(OUTPUTS)["data"]) == ([], {"a": "b"})


async def test_a_graph_of_the_same_name_is_not_touched(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.double.put(*GRAPHS, {"metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": {"theirs": True}})
        await site.request(autoApply=True)
        await site.step()
        await site.ends(1)
        await site.step()
        assert (site.stage(), site.reasons()) == ("Failed", [*READY, "DeploymentFailed"])
        assert site.double.find(*GRAPHS, NAMESPACE, NAME)["spec"] == {"theirs": True}


async def test_a_budget_that_carries_nothing_fails_with_both_numbers(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request(powerBudgetWatts=100)
        await site.step()
        await site.ends(1)
        await site.step()
        assert (site.stage(), site.reasons()) == ("Failed", [*BEGUN, "ProfilingJobFailed"])
        assert "the budget is 100 W" in site.events()[-1]["message"]
        assert len(site.double.objects(*EVENTS)) == 3
