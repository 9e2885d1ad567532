"""Our planner's settings for a request's deployment, as `wattscale planner run -c` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from planner.profiler.requests.generated.deployment_sizing import DeploymentSizing, PoolSizing, budget_of, gpu_name
from planner.profiler.requests.power_request import PowerRequest


@dataclass(frozen=True, slots=True)
class PlannerPlace:
    """Where the planner runs: folder of the profile, the bus, where metrics are, and how workers are pooled.

    ``metrics``: the section ``metrics`` of a deployment; ``prometheus``: the address of a server, empty: none.
    """

    profile: str
    bus: str
    pools: Literal["disaggregated", "aggregated"]
    metrics: Mapping[str, Any]
    prometheus: str = ""


def planner_configuration(request: PowerRequest, sizing: DeploymentSizing, place: PlannerPlace) -> dict[str, Any]:
    """The settings. The request's own planner settings are in the section ``Planner`` and come last."""
    targets, budget_watts = request.targets, budget_of(request)
    key = f"{request.deployment_namespace}-{request.deployment_name}"
    pools = {"prefill": sizing.prefill, "decode": sizing.decode}
    if place.pools == "aggregated":
        pools = {"aggregated": sizing.aggregated}
    deployment: dict[str, Any] = {
        "model": request.model,
        "profile": place.profile,
        "ttft_ms": targets.ttft_ms,
        "itl_ms": targets.itl_ms,
        "expected_isl_tokens": targets.isl,
        "expected_osl_tokens": targets.osl,
        "pools": {name: _pool(pool, request) for name, pool in pools.items()},
    }
    if place.metrics:
        deployment["metrics"] = dict(place.metrics)
    if request.hardware.total_gpus is not None:
        deployment["max_gpus"] = request.hardware.total_gpus
    settings: dict[str, Any] = {"bus": {"servers": [place.bus]}}
    if place.prometheus:
        settings["prometheus"] = {"url": place.prometheus}
    if budget_watts is not None:
        deployment |= {"site": request.name, "gpu": gpu_name(request)}
        settings["sites"] = {request.name: {"budget_watts": budget_watts, "covers": "workers"}}
    else:
        settings["power_aware"] = False
    settings["deployments"] = {key: deployment}
    if request.planner:
        settings["Planner"] = dict(request.planner)
    return settings


def _pool(pool: PoolSizing, request: PowerRequest) -> dict[str, Any]:
    found: dict[str, Any] = {"gpus_per_replica": pool.gpus}
    saves = request.power is not None and request.power.objective == "goodput_per_watt"
    if saves and pool.cap_watts is not None:
        # Otherwise the planner is free to choose any limit within the budget.
        found["max_cap_watts"] = pool.cap_watts
    return found
