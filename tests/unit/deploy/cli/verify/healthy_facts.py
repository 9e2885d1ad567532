"""The facts of a small site in which all is well, for tests that change one of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agent.runtime.preflight import Finding, Status
from bus_schemas import v1
from deploy.cli.verify.facts import (
    AnnotatedPod,
    BusFacts,
    ClusterFacts,
    ConsumerUse,
    Facts,
    MetricFacts,
    NewestReport,
    RightsFacts,
    SeriesGroup,
    SettingsFacts,
    Unknown,
)
from deploy.views.site_view import SiteView
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.domain.config import PlannerConfig
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.pool import Role
from tests.integration.planner.stage import MODEL, NAME, SITE, config

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
NODES = ("node-0", "node-1")
SERIES = (
    SeriesGroup("dynamo_frontend_requests_total", {"dynamo_namespace": NAME, "model": MODEL}, "model"),
    SeriesGroup(
        "vllm:num_requests_running",
        {"dynamo_namespace": NAME, "model_name": MODEL, "dynamo_component": "backend"},
        "model_name",
    ),
)
POOLS = {PoolId("prefill"): PoolSelector(Role.PREFILL), PoolId("decode"): PoolSelector(Role.DECODE)}
SELECTOR = SeriesSelector(DeploymentId(NAME), MODEL, NAME, POOLS)


def planner_config() -> PlannerConfig:
    """Settings that expect the two GPUs."""
    found = config()
    sites = {name: replace(site, expected_gpus=2) for name, site in found.sites.items()}
    return replace(found, sites=sites)


def power(node: str, **changes: Any) -> v1.PowerDecision:
    cap = v1.GpuCap(gpu=f"GPU-{node}", cap_watts=400, fallback_watts=200)
    given: dict[str, Any] = {
        "time": NOW,
        "node": node,
        "decision_id": 3,
        "incarnation": "one",
        "epoch": 5,
        "valid_for_s": 30,
        "caps": (cap,),
        "site": SITE,
        "budget_watts": 4000,
    }
    return v1.PowerDecision(**given | changes)


def power_ack(node: str, **changes: Any) -> v1.PowerAck:
    gpu = v1.GpuInForce(gpu=f"GPU-{node}", requested_watts=400, enforced_watts=400)
    given: dict[str, Any] = {
        "time": NOW,
        "node": node,
        "decision_id": 3,
        "applied_decision_id": 3,
        "incarnation": "one",
        "epoch": 5,
        "status": v1.AckStatus.APPLIED,
        "gpus": (gpu,),
    }
    return v1.PowerAck(**given | changes)


def telemetry(node: str, **changes: Any) -> v1.NodeTelemetry:
    given: dict[str, Any] = {
        "gpu": f"GPU-{node}",
        "draw_watts": 300,
        "enforced_watts": 400,
        "requested_watts": 400,
        "default_watts": 700,
        "min_watts": 200,
        "max_watts": 700,
        "pod": "ns/worker",
    }
    return v1.NodeTelemetry(time=NOW, node=node, boot="one", gpus=(v1.GpuTelemetry(**given | changes),))


def scaling(**changes: Any) -> v1.ScalingDecision:
    given: dict[str, Any] = {
        "time": NOW,
        "deployment": NAME,
        "decision_id": 7,
        "incarnation": "one",
        "epoch": 5,
        "pools": {"decode": v1.PoolTarget(role="decode", replicas=2)},
    }
    return v1.ScalingDecision(**given | changes)


def scaling_ack(**changes: Any) -> v1.ScalingAck:
    given: dict[str, Any] = {
        "time": NOW,
        "deployment": NAME,
        "decision_id": 7,
        "scaled_decision_id": 7,
        "incarnation": "one",
        "status": v1.AckStatus.APPLIED,
        "replicas": {"decode": 2},
        "actuator": "kubernetes on host",
    }
    return v1.ScalingAck(**given | changes)


def record(**changes: Any) -> v1.PlanRecord:
    given: dict[str, Any] = {
        "time": NOW,
        "deployment": NAME,
        "site": SITE,
        "decision_id": 7,
        "budget_watts": 4000,
        "observed": {"requests": 20.0, "interval_s": 2.0},
    }
    return v1.PlanRecord(**given | changes)


def view(*changed: v1.Message) -> SiteView:
    """Everything that the bus holds when all is well, and then the messages of the test."""
    found = SiteView()
    found.add(v1.Lease(time=NOW, holder="planner-0", ttl_s=10))
    for node in NODES:
        for of_node in (power(node), power_ack(node), telemetry(node)):
            found.add(of_node)
    for message in (scaling(), scaling_ack(), record(), *changed):
        found.add(message)
    found.claimed(NAME, claim())
    return found


def claim(*notes: str) -> v1.Lease:
    """The claim of the deployment's connector."""
    return v1.Lease(time=NOW, holder="kubernetes on host (process 1)", ttl_s=10, notes=notes)


def bus(*changed: v1.Message, **changes: Any) -> BusFacts:
    """The bus, with messages of the test that are newer, and other changes."""
    report = NewestReport(0.5, -0.01)
    facts = BusFacts(
        servers="nats://127.0.0.1:4222",
        version="2.15.1",
        now=NOW,
        view=view(*changed),
        nodes=dict.fromkeys(NODES, report),
        planners={NAME: report},
        connectors={NAME: report},
        boots=dict.fromkeys(NODES, ("one", "one")),
        consumers={NAME: ConsumerUse(1, 3, 0)},
    )
    return replace(facts, **changes)


def healthy(bus_facts: BusFacts | Unknown | None = None, **changes: Any) -> Facts:
    """All facts, with the changes of the test."""
    facts = Facts(
        bus=bus_facts or bus(),
        settings=SettingsFacts((), planner_config(), {NAME: MODEL}),
        metrics=MetricFacts("http://prometheus", "", SERIES, {NAME: SELECTOR}, {NAME: 1.0}, {NAME: 60.0}),
        cluster=ClusterFacts(NODES, (AnnotatedPod("ns/worker", 400),)),
        rights=RightsFacts(15),
        hardware=(Finding("driver", Status.OK, "2 GPUs"),),
        tested={NAME: "decode=2"},
        versions=("wattscale 1", "bus contract v1"),
    )
    return replace(facts, **changes)
