"""Dynamo 1.6.1's planner modes, each with the best settings that its documentation gives for it.

Owns configuration only; Dynamo's own code reads it. Intervals and predictors are those its guides recommend for
bursty traffic where they say anything, else its defaults.
"""

from __future__ import annotations

from typing import Any

COMMON: dict[str, Any] = {
    "environment": "virtual",
    "backend": "mocker",
    "mode": "disagg",
    "max_gpu_budget": -1,
    "min_endpoint": 1,
}
MODES: dict[str, dict[str, Any]] = {
    "dynamo-easy-throughput": {"optimization_target": "throughput"},
    "dynamo-easy-latency": {"optimization_target": "latency"},
    "dynamo-sla": {
        "optimization_target": "sla",
        "enable_throughput_scaling": True,
        "enable_load_scaling": False,
        "throughput_adjustment_interval_seconds": 60,
        "load_predictor": "kalman",
        "load_predictor_log1p": True,
    },
    "dynamo-sla-load": {
        "optimization_target": "sla",
        "enable_throughput_scaling": True,
        "enable_load_scaling": True,
        "throughput_adjustment_interval_seconds": 60,
        "load_adjustment_interval_seconds": 5,
        "load_predictor": "kalman",
        "load_predictor_log1p": True,
    },
}


def planner_config(mode: str, ttft_ms: float, itl_ms: float) -> dict[str, Any]:
    """The mapping that Dynamo's ``PlannerConfig`` reads. Raises KeyError for an unknown mode."""
    return {**COMMON, "ttft_ms": ttft_ms, "itl_ms": itl_ms, **MODES[mode]}
