"""What a generated deployment's energy costs at most, by the price that the request names."""

from __future__ import annotations

from planner.profiler.requests.generated.deployment_sizing import DeploymentSizing, highest_limit_watts
from planner.profiler.requests.power_request import PowerRequest

W_PER_KW = 1000.0
S_PER_HOUR = 3600.0
TOKENS = 1e6


def energy_cost(request: PowerRequest, sizing: DeploymentSizing) -> str:
    """One sentence; empty where the request names no price.

    GPUs are counted at the limits that they get, or at the highest of their type where they get none; tokens at the
    rate that the replicas reach within the targets. Both pools are counted. The price has whatever currency it has.
    """
    price = request.power.price_per_kwh if request.power is not None else None
    if price is None:
        return ""
    pools, highest, watts = (sizing.prefill, sizing.decode), highest_limit_watts(request), 0
    for pool in pools:
        limit = highest if pool.cap_watts is None else pool.cap_watts
        if limit is None:
            return f"its cost at {price:g} per kWh is not known, for the limits of its GPUs are not; give gpuSku"
        watts += pool.gpus * pool.replicas * limit
    per_hour = watts / W_PER_KW * price
    rate_per_s = min(pool.requests_per_s * pool.replicas for pool in pools)
    per_tokens = per_hour / (rate_per_s * request.targets.osl * S_PER_HOUR) * TOKENS
    return (
        f"at {price:g} per kWh its {watts:g} W cost at most {per_hour:.4g} an hour, {per_tokens:.4g} for a million "
        "tokens of answers under full load"
    )
