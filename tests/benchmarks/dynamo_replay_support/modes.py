"""Dynamo 1.6.1's planner modes, each with the best settings that its documentation gives for it.

Owns configuration only; Dynamo's own code reads it. Intervals and predictors are those its guides recommend for
bursty traffic where they say anything, else its defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
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


EASY_SWEEP: dict[str, dict[str, Any]] = {
    "down at 40": {"load_scaling_down_sensitivity": 40},
    "every 15 s": {"load_adjustment_interval_seconds": 15},
    "every 30 s": {"load_adjustment_interval_seconds": 30},
}
SLA_SWEEP: dict[str, dict[str, Any]] = {
    "constant": {"load_predictor": "constant"},
    "TTFT x0.5": {"ttft_share": 0.5},
    "TTFT x0.25": {"ttft_share": 0.25},
    "constant, TTFT x0.25": {"load_predictor": "constant", "ttft_share": 0.25},
}
"""Settings of each kind of mode that an operator would try beside the guides' own. ``ttft_share`` is ours: the planner
aims at this share of the target that requests are judged by."""


def variants(mode: str) -> dict[str, dict[str, Any]]:
    """The settings of a small sweep over a mode, by name; the guides' own first, with an empty name."""
    return {"": {}, **(EASY_SWEEP if mode.startswith("dynamo-easy") else SLA_SWEEP)}


def planner_config(mode: str, ttft_ms: float, itl_ms: float, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The mapping that Dynamo's ``PlannerConfig`` reads; ``given``: of ``variants``. Raises KeyError for an unknown
    mode."""
    chosen = dict(given or {})
    aim_ms = ttft_ms * float(chosen.pop("ttft_share", 1.0))
    return {**COMMON, "ttft_ms": aim_ms, "itl_ms": itl_ms, **MODES[mode], **chosen}
