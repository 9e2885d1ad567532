"""The graph of the power guide, from its pods' labels to the caps of its GPUs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.adapters.kubernetes.gpu_owners import PodLabels, owner_of
from agent.core.devices import PodRef
from agent.core.ownership import Pod
from bus_schemas import v1
from deploy.views import live_pools
from planner.core.intake import initial_state
from planner.core.state import PlannerState
from planner.core.step import step
from planner.domain.config import PlannerConfig, SiteConfig
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId
from planner.domain.observation import PoolObservation
from planner.domain.plan import Plan
from planner.domain.pool import Replicas
from planner.domain.reasons import ReasonCode
from planner.domain.units import Milliwatts
from planner.runtime.inbox import Inbox
from tests.unit.planner.core.small_site import DECODE, PREFILL, SITE, deployment, pool, traffic

GRAPH = DeploymentId("dynamo-system-vllm-disagg")
NODE = "minikube"
WORKERS = ("VLLMPrefillWorker", "VLLMDecodeWorker", "VLLMDecodeWorker")
TYPES = {"VLLMPrefillWorker": "prefill", "VLLMDecodeWorker": "decode", "Frontend": "frontend", "Planner": "planner"}
TYPES |= {"FastDecode": "decode", "SlowDecode": "decode"}


def pod(component: str, index: int, *, typed: bool) -> Pod:
    labels = {"nvidia.com/dynamo-graph-deployment-name": "vllm-disagg", "nvidia.com/dynamo-component": component}
    if typed:
        labels["nvidia.com/dynamo-sub-component-type"] = TYPES[component]
    return Pod(f"uid-{index}", PodRef("dynamo-system", f"vllm-disagg-{component.lower()}-{index}"), labels=labels)


def telemetry(pods: dict[str, Pod], gpus: int = 8) -> v1.NodeTelemetry:
    rows = []
    for index in range(gpus):
        name = f"GPU-{index}"
        owner = owner_of(pods[name], PodLabels()) if name in pods else None
        rows.append(
            v1.GpuTelemetry(
                gpu=name,
                default_watts=700,
                min_watts=200,
                max_watts=700,
                requested_watts=700,
                enforced_watts=700,
                draw_watts=150,
                health=v1.GpuHealth.OK,
                deployment=owner.deployment if owner else "",
                pool=owner.pool if owner else "",
                role=owner.role if owner else "",
                worker=owner.worker if owner else "",
            )
        )
    return v1.NodeTelemetry(time=datetime(2026, 1, 1, tzinfo=UTC), node=NODE, boot="b", clock_s=1.0, gpus=tuple(rows))


def graph_planner(**components: str) -> PlannerConfig:
    pools = {name: pool(name, component=components.get(name, "")) for name in (PREFILL, DECODE)}
    return PlannerConfig(
        {GRAPH: replace(deployment(pools), deployment=GRAPH)}, {SITE: SiteConfig(SITE, Milliwatts(3_000_000))}
    )


def decided(config: PlannerConfig, message: v1.NodeTelemetry) -> tuple[PlannerState, Plan]:
    """One tick of a planner that received this report, with one prefill and two decode workers serving."""
    inbox = Inbox(lambda: None, lambda: None, lambda: 0.0, 0.0, config.deployments)
    inbox.received(message, 1)
    ready = {PREFILL: PoolObservation(Replicas(ready=1)), DECODE: PoolObservation(Replicas(ready=2))}
    seen = inbox.take({GRAPH: replace(traffic(20.0), pools=ready)})
    return step(initial_state(config, 1, 0.0, (), ()), seen, config, config.clock(0.0))


def unmatched(plan: Plan) -> list[str]:
    return [note.sentence for note in plan.deployments[GRAPH].notes if note.reason is ReasonCode.POOL_UNMATCHED]


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "untyped"])
@pytest.mark.parametrize("components", [{}, {PREFILL: "VLLMPrefillWorker", DECODE: "VLLMDecodeWorker"}])
def test_the_workers_of_the_guides_graph_get_the_caps_of_their_pools(typed: bool, components: dict[str, str]) -> None:
    pods = {f"GPU-{i}": pod(component, i, typed=typed) for i, component in enumerate(WORKERS)}
    _, plan = decided(graph_planner(**components), telemetry(pods))
    assert unmatched(plan) == []
    caps = {cap.gpu: cap.setpoint.cap_mw for order in plan.power for cap in order.caps}
    wanted = {name: each.setpoint and each.setpoint.cap_mw for name, each in plan.deployments[GRAPH].pools.items()}
    assert caps[GpuId("GPU-0")] == wanted[PREFILL]
    assert caps[GpuId("GPU-1")] == caps[GpuId("GPU-2")] == wanted[DECODE]
    assert caps[GpuId("GPU-7")] == 200_000, "parked"


def test_a_worker_that_is_of_no_pool_is_named_and_keeps_its_gpu() -> None:
    pods = {"GPU-0": pod("VLLMPrefillWorker", 0, typed=True), "GPU-1": pod("VLLMDecodeWorker", 1, typed=True)}
    pods["GPU-7"] = pod("Frontend", 7, typed=False)
    _, plan = decided(graph_planner(), telemetry(pods))
    assert len(unmatched(plan)) == 1
    assert unmatched(plan)[0].startswith("minikube/GPU-7: component frontend, role aggregated is none of the pools")
    caps = {cap.gpu: cap.setpoint.cap_mw for order in plan.power for cap in order.caps}
    assert caps.get(GpuId("GPU-7"), 700_000) > 200_000, "a pod runs there: it is not parked"
    assert all(GpuId("GPU-7") not in hint.gpus for order in plan.scaling for hint in order.placements)


def test_a_pool_that_serves_on_no_known_gpu_is_named() -> None:
    pods = {"GPU-1": pod("VLLMDecodeWorker", 1, typed=True)}
    _, plan = decided(graph_planner(), telemetry(pods))
    assert unmatched(plan) == ["pool prefill: 1 replicas serve, and no GPU that the agents report is theirs"]


def test_the_live_check_names_pools_and_gpus_that_fit_nothing() -> None:
    pods = {"GPU-1": pod("VLLMDecodeWorker", 1, typed=True), "GPU-7": pod("Frontend", 7, typed=False)}
    shown = list(live_pools.lines([telemetry(pods)], graph_planner()))
    assert shown[:2] == [
        f"note: {GRAPH}: pool prefill holds no GPU of the 2 that report this deployment",
        f"ok: {GRAPH}: pool decode holds 1 GPUs",
    ]
    assert shown[2].startswith(
        f"note: {GRAPH}: minikube/GPU-7: component frontend, role aggregated is none of the pools"
    )


def test_two_pools_of_one_role_differ_by_component_alone() -> None:
    fast, slow = PoolId("fast"), PoolId("slow")
    pools = {
        PREFILL: pool(PREFILL),
        fast: replace(pool(DECODE), pool=fast, component="FastDecode"),
        slow: replace(pool(DECODE), pool=slow, component="SlowDecode"),
    }
    config = PlannerConfig(
        {GRAPH: replace(deployment(pools), deployment=GRAPH)}, {SITE: SiteConfig(SITE, Milliwatts(5_600_000))}
    )
    pods = {
        f"GPU-{i}": pod(each, i, typed=True) for i, each in enumerate(("FastDecode", "SlowDecode", "VLLMDecodeWorker"))
    }
    inbox = Inbox(lambda: None, lambda: None, lambda: 0.0, 0.0, config.deployments)
    inbox.received(telemetry(pods), 1)
    gpus = inbox.take({}).nodes[NodeId(NODE)].gpus
    assert [gpus[GpuId(f"GPU-{i}")].pool for i in range(3)] == [fast, slow, None]
