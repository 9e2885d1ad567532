"""What is generated for a request: sizes, both forms of the graph, plain Deployments, ConfigMaps."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from planner.domain.power import PowerCurve
from planner.domain.profile import DecodeProfile, PrefillProfile, Profile
from planner.profiler.requests.generated.config_maps import output_map, profile_map
from planner.profiler.requests.generated.deployment_sizing import SizingError, size_deployment
from planner.profiler.requests.generated.energy_cost import energy_cost
from planner.profiler.requests.generated.graph_deployment import graph_deployment
from planner.profiler.requests.generated.plain_deployments import plain_deployments
from planner.profiler.requests.request_manifest import parse_request
from tests.unit.planner.profiler.requests.request_examples import ALPHA, BETA, OWN, with_value

LABELS = {"dgdr.nvidia.com/name": "sla-aic", "dgdr.nvidia.com/namespace": "chat"}


def profile(prefill_tp: int = 2, decode_tp: int = 4) -> Profile:
    """TTFT 20 ms and 50 us a token; ITL 8 ms, 0.2 ms a request and 1 us a token of the KV cache of a million."""
    isls = (100.0, 2000.0, 8000.0)
    points = [(batch, context) for context in (500.0, 3000.0, 9000.0) for batch in (1, 40, 100)]
    ttft = tuple(20.0 + 0.05 * isl for isl in isls)
    itl = tuple(8.0 + 0.2 * batch + 1e-6 * batch * context for batch, context in points)
    return Profile(
        "known",
        PrefillProfile(isls, ttft, tuple(isl / ms * 1000 / prefill_tp for isl, ms in zip(isls, ttft, strict=True))),
        DecodeProfile(
            tuple(batch * context / 1e6 for batch, context in points),
            tuple(context for _, context in points),
            itl,
            tuple(batch / ms * 1000 / decode_tp for (batch, _), ms in zip(points, itl, strict=True)),
            1_000_000,
        ),
        prefill_gpus=prefill_tp,
        decode_gpus=decode_tp,
        max_num_seqs=256,
    )


def graph(manifest: dict[str, Any]) -> dict[str, Any]:
    request = parse_request(manifest)
    return graph_deployment(request, size_deployment(profile(), request))


def parts(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {part["name"]: part for part in made["spec"]["components"]}


def main(part: dict[str, Any]) -> dict[str, Any]:
    return part["podTemplate"]["spec"]["containers"][0]


def test_sizes_are_those_of_the_profile_s_lines():
    request = parse_request(BETA)
    found = size_deployment(profile(), request)
    assert (found.prefill.gpus, found.decode.gpus) == (2, 4)
    assert found.ttft_ms == pytest.approx(170.0, rel=0.01)
    # 8 + n * (0.2 + 3075e-6) <= 40
    assert found.decode_in_flight == 157
    assert found.decode.requests_per_s == pytest.approx(157 / (150 * 0.040), rel=0.01)
    assert (found.prefill.replicas, found.decode.replicas, found.unmet) == (1, 1, ())


def test_replicas_follow_the_load_and_fit_the_gpus():
    busy = with_value(BETA, "spec.workload.requestRate", 30.0)
    request = parse_request(with_value(busy, "spec.hardware.totalGpus", 100))
    found = size_deployment(profile(), request)
    assert (found.prefill.replicas, found.decode.replicas) == (6, 2), "5.88 and 26 requests a second each"
    few = size_deployment(profile(), parse_request(with_value(busy, "spec.hardware.totalGpus", 10)))
    assert 2 * few.prefill.replicas + 4 * few.decode.replicas <= 10
    with pytest.raises(SizingError, match="needs 6 GPUs; totalGpus is 5"):
        size_deployment(profile(), parse_request(with_value(busy, "spec.hardware.totalGpus", 5)))


def test_concurrency_is_a_rate_by_little_s_law():
    workload = {"isl": 3000, "osl": 150, "concurrency": 600.0}
    request = parse_request(with_value(with_value(BETA, "spec.workload", workload), "spec.hardware.totalGpus", 500))
    found = size_deployment(profile(), request)
    rate = 600 / (found.ttft_ms / 1000 + 150 * found.itl_ms / 1000)
    assert found.decode.replicas == -(-rate // found.decode.requests_per_s)
    assert found.decode.replicas > 1


def test_targets_that_are_out_of_reach_are_named():
    request = parse_request(with_value(BETA, "spec.sla", {"ttft": 100.0, "itl": 5.0}))
    found = size_deployment(profile(), request)
    assert [line.split(" ")[0] for line in found.unmet] == ["TTFT", "ITL"]
    assert found.decode_in_flight == 1


@pytest.mark.parametrize("budget_watts", [2200.0, 2600.0, 4000.0, 9000.0])
def test_power_limits_of_what_starts_are_within_the_budget(budget_watts: float):
    for objective in ("throughput", "latency", "goodput_per_watt"):
        manifest = with_value(with_value(OWN, "spec.powerBudgetWatts", budget_watts), "spec.objective", objective)
        request = parse_request(with_value(manifest, "spec.workload.requestRate", 60.0))
        found = size_deployment(profile(), request)
        pools = (found.prefill, found.decode)
        assert sum(pool.replicas * pool.gpus * (pool.cap_watts or 0) for pool in pools) <= budget_watts
        assert all(350 <= (pool.cap_watts or 0) <= 700 for pool in pools)


def test_the_most_work_per_watt_is_below_the_highest_limit():
    found = size_deployment(profile(), parse_request(with_value(OWN, "spec.powerBudgetWatts", 100_000)))
    assert found.prefill.cap_watts is not None
    assert found.decode.cap_watts is not None
    assert found.decode.cap_watts < 700


def test_a_measured_power_curve_is_sized_by_in_place_of_the_published_one():
    """GPUs whose limit goes from a useful 300 W to 450 W, where the published ones go from 350 W to 700 W."""
    measured = PowerCurve(
        p_s_mw=90_000, p_u_mw=430_000, alpha=0.5, idle_mw=70_000, min_mw=200_000, max_mw=450_000, useful_mw=300_000
    )
    manifest = with_value(OWN, "spec.powerBudgetWatts", 9000.0)
    manifest = with_value(manifest, "spec.objective", "throughput")
    known = replace(profile(), prefill_curve=measured, decode_curve=measured)
    found = size_deployment(known, parse_request(manifest))
    assert (found.prefill.cap_watts, found.decode.cap_watts) == (450, 450)
    half = size_deployment(replace(profile(), decode_curve=measured), parse_request(manifest))
    assert (half.prefill.cap_watts, half.decode.cap_watts) == (700, 450), "only one phase was measured"
    few = with_value(manifest, "spec.powerBudgetWatts", 1799.0)
    with pytest.raises(SizingError, match="needs 1800 W at the lowest useful limits; the budget is 1799 W"):
        size_deployment(known, parse_request(few))


def test_the_most_work_per_watt_is_found_on_the_measured_curve():
    """With so flat a curve each watt above the lowest useful limit brings less speed than it costs."""
    flat = PowerCurve(
        p_s_mw=90_000, p_u_mw=430_000, alpha=0.1, idle_mw=70_000, min_mw=200_000, max_mw=450_000, useful_mw=300_000
    )
    manifest = with_value(with_value(OWN, "spec.powerBudgetWatts", 9000.0), "spec.objective", "goodput_per_watt")
    found = size_deployment(replace(profile(), prefill_curve=flat, decode_curve=flat), parse_request(manifest))
    assert (found.prefill.cap_watts, found.decode.cap_watts) == (300, 300)


def test_a_measured_power_curve_needs_no_known_gpu_type():
    measured = PowerCurve(90_000, 430_000, 0.5, 70_000, 200_000, 450_000, 300_000)
    request = parse_request(with_value(OWN, "spec.hardware.gpuSku", "l4"))
    found = size_deployment(replace(profile(), prefill_curve=measured, decode_curve=measured), request)
    assert 300 <= (found.prefill.cap_watts or 0) <= 450
    with pytest.raises(SizingError, match="no figures for GPU type 'l4'"):
        size_deployment(replace(profile(), prefill_curve=measured), request)


def test_a_budget_that_carries_nothing_is_refused():
    request = parse_request(with_value(OWN, "spec.powerBudgetWatts", 2099))
    with pytest.raises(SizingError, match="needs 2100 W at the lowest useful limits; the budget is 2099 W"):
        size_deployment(profile(), request)
    request = parse_request(with_value(OWN, "spec.hardware.gpuSku", "l4"))
    with pytest.raises(SizingError, match="no figures for GPU type 'l4'"):
        size_deployment(profile(), request)


def test_v1alpha1_s_graph():
    made = graph(
        with_value(
            ALPHA, "spec.deploymentOverrides", {"name": "chat-graph", "namespace": "serving", "labels": {"team": "a"}}
        )
    )
    assert made["apiVersion"] == "nvidia.com/v1alpha1"
    assert made["metadata"] == {"name": "chat-graph", "namespace": "serving", "labels": {"team": "a", **LABELS}}
    services = made["spec"]["services"]
    assert list(services) == ["Frontend", "Planner", "prefill", "decode"]
    prefill, decode = services["prefill"], services["decode"]
    assert (prefill["componentType"], prefill["subComponentType"]) == ("worker", "prefill")
    assert (prefill["resources"], decode["resources"]) == ({"limits": {"gpu": "2"}}, {"limits": {"gpu": "4"}})
    arguments = decode["extraPodSpec"]["mainContainer"]["args"]
    assert arguments[arguments.index("--tensor-parallel-size") + 1] == "4"
    assert "--is-prefill-worker" in prefill["extraPodSpec"]["mainContainer"]["args"]
    planner = services["Planner"]["extraPodSpec"]
    assert {"--min-endpoint=2", "--ttft=200", "--itl=20", "--isl=3000", "--prefill-engine-num-gpu=2"} <= set(
        planner["mainContainer"]["args"]
    )
    assert planner["volumes"] == [{"name": "planner-profile-data", "configMap": {"name": "planner-profile-data"}}]


def test_v1beta1_s_graph():
    made = graph(BETA)
    assert made["apiVersion"] == "nvidia.com/v1beta1"
    found = parts(made)
    assert [part["type"] for part in found.values()] == ["frontend", "planner", "prefill", "decode"]
    assert main(found["decode"])["resources"] == {"limits": {"nvidia.com/gpu": "4"}}
    assert main(found["decode"])["image"] == "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.4.0"
    settings = json.loads(main(found["Planner"])["args"][1])
    assert (settings["min_endpoint"], settings["ttft"], settings["max_gpu_budget"]) == (2, 500.0, 8)
    assert "Planner" not in parts(graph(with_value(BETA, "spec.features", {}))), "no planner was asked for"


def test_dynamo_s_power_settings_annotate_the_workers():
    planner = {"enable_power_awareness": True, "total_gpu_power_limit": 3000}
    found = parts(graph(with_value(BETA, "spec.features.planner", planner)))
    assert json.loads(main(found["Planner"])["args"][1])["total_gpu_power_limit"] == 3000
    watts = {
        role: int(found[role]["podTemplate"]["metadata"]["annotations"]["dynamo.nvidia.com/gpu-power-limit"])
        for role in ("prefill", "decode")
    }
    assert 2 * watts["prefill"] + 4 * watts["decode"] <= 3000


def test_our_own_kind_is_scaled_by_our_planner_alone():
    found = parts(graph(OWN))
    assert list(found) == ["Frontend", "prefill", "decode"]
    assert all(found[role]["scalingAdapter"] == {} for role in ("prefill", "decode"))
    assert "metadata" not in found["decode"]["podTemplate"], "limits travel as leases, not as annotations"


@pytest.mark.parametrize("backend", ["vllm", "sglang", "trtllm"])
def test_each_backend_gets_its_tp(backend: str):
    found = parts(graph(with_value(BETA, "spec.backend", backend)))
    flag = "--tp" if backend == "sglang" else "--tensor-parallel-size"
    for role, tp in (("prefill", "2"), ("decode", "4")):
        container = main(found[role])
        assert container["command"][-1] == f"dynamo.{backend}"
        assert container["args"][container["args"].index(flag) + 1] == tp
        assert "--trust-remote-code" not in container["args"]


@pytest.mark.parametrize(
    "manifest", [with_value(ALPHA, "spec.useMocker", True), with_value(BETA, "spec.features.mocker", {"enabled": True})]
)
def test_a_mocker_needs_no_gpu(manifest: dict[str, Any]):
    made = graph(manifest)
    assert "dynamo.mocker" in json.dumps(made)
    assert '"limits"' not in json.dumps(made)


def test_model_cache_router_and_remote_code():
    features = {"planner": {}, "kvRouter": {"enabled": True}}
    manifest = with_value(with_value(BETA, "spec.features", features), "spec.overrides.trustRemoteCode", True)
    manifest = with_value(manifest, "spec.modelCache", {"pvcName": "weights", "pvcModelPath": "qwen"})
    found = parts(graph(manifest))
    decode = main(found["decode"])
    assert decode["args"][:2] == ["--model", "/opt/model-cache/qwen"]
    assert "--trust-remote-code" in decode["args"]
    assert found["decode"]["podTemplate"]["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "weights"}
    assert main(found["Frontend"])["env"] == [{"name": "DYN_ROUTER_MODE", "value": "kv"}]


def override(components: list[dict[str, Any]], **metadata: Any) -> dict[str, Any]:
    dgd = {"apiVersion": "nvidia.com/v1beta1", "kind": "DynamoGraphDeployment", "metadata": metadata}
    return with_value(BETA, "spec.overrides.dgd", {**dgd, "spec": {"components": components}})


def test_overrides_of_the_graph_are_merged_by_name():
    container = {"name": "main", "env": [{"name": "HF_HOME", "value": "/cache"}]}
    made = graph(
        override(
            [{"name": "decode", "replicas": 3, "podTemplate": {"spec": {"containers": [container]}}}],
            name="better",
            labels={"team": "a", "dgdr.nvidia.com/name": "stolen"},
        )
    )
    assert made["metadata"]["name"] == "better"
    assert made["metadata"]["labels"] == {
        "team": "a",
        "dgdr.nvidia.com/name": "qwen",
        "dgdr.nvidia.com/namespace": "default",
    }
    decode = parts(made)["decode"]
    assert decode["replicas"] == 3
    assert main(decode)["env"] == container["env"]
    assert main(decode)["resources"] == {"limits": {"nvidia.com/gpu": "4"}}, "what is not overridden stays"
    with pytest.raises(
        SizingError, match="there is no component 'router'; there are Frontend, Planner, decode, prefill"
    ):
        graph(override([{"name": "router"}]))


def test_plain_deployments():
    request = parse_request(BETA)
    deployment, service = plain_deployments(request, size_deployment(profile(), request))
    assert deployment["metadata"]["labels"] | request.labels == deployment["metadata"]["labels"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "4"}}, "one pool: the larger of both sizes"
    assert container["command"][:3] == ["vllm", "serve", "Qwen/Qwen3-32B"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]


def test_config_maps_have_dynamo_s_names_and_keys():
    request = parse_request(with_value(ALPHA, "spec.deploymentOverrides.namespace", "serving"))
    output = output_map(request, {"config_with_planner.yaml": "kind: DynamoGraphDeployment"})
    assert (output["metadata"]["name"], output["metadata"]["namespace"]) == ("dgdr-output-sla-aic", "chat")
    texts = {"prefill_raw_data.json": "{}", "decode_raw_data.json": "{}", "other": ""}
    found = profile_map(request, texts)
    assert (found["metadata"]["name"], found["metadata"]["namespace"]) == ("planner-profile-data", "serving")
    assert list(found["data"]) == ["prefill_raw_data.json", "decode_raw_data.json"]
    assert found["metadata"]["labels"] == LABELS


def cost(manifest: dict[str, Any]) -> str:
    request = parse_request(manifest)
    return energy_cost(request, size_deployment(profile(), request))


def test_the_price_of_energy_is_that_of_the_limits():
    assert cost(BETA) == ""
    free = with_value(with_value(OWN, "spec.powerBudgetWatts", ...), "spec.pricePerKwh", 0.5)
    assert cost(free).startswith("at 0.5 per kWh its 4200 W cost at most 2.1 an hour, "), "2 + 4 GPUs of 700 W"
    assert "cost at most 0 an hour, 0 for" in cost(with_value(free, "spec.pricePerKwh", 0))
    assert "give gpuSku" in cost(with_value(free, "spec.hardware", {}))
    capped = size_deployment(profile(), parse_request(OWN))
    watts = sum(pool.gpus * pool.replicas * (pool.cap_watts or 0) for pool in (capped.prefill, capped.decode))
    assert cost(OWN).startswith(f"at 0.21 per kWh its {watts} W cost at most {watts / 1000 * 0.21:.4g} an hour, ")


def test_the_price_of_tokens_follows_the_rate():
    request = parse_request(with_value(OWN, "spec.powerBudgetWatts", ...))
    sizing = size_deployment(profile(), request)
    rate = min(pool.requests_per_s * pool.replicas for pool in (sizing.prefill, sizing.decode))
    per_hour = 4.2 * 0.21
    tokens_per_hour = rate * request.targets.osl * 3600
    assert f"{per_hour / tokens_per_hour * 1e6:.4g} for a million tokens" in energy_cost(request, sizing)
