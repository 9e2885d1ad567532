"""Manifests of each form, as the guides write them, and one request."""

from __future__ import annotations

import copy
from typing import Any

from planner.profiler.requests.power_request import PowerRequest
from planner.profiler.requests.request_manifest import parse_request

ALPHA: dict[str, Any] = {
    "apiVersion": "nvidia.com/v1alpha1",
    "kind": "DynamoGraphDeploymentRequest",
    "metadata": {"name": "sla-aic", "namespace": "chat"},
    "spec": {
        "model": "Qwen/Qwen3-32B",
        "backend": "vllm",
        "profilingConfig": {
            "profilerImage": "nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.6.1",
            "config": {
                "sla": {"isl": 3000, "osl": 150, "ttft": 200, "itl": 20},
                "sweep": {"useAiConfigurator": False},
                "planner": {"plannerMinEndpoint": 2},
            },
        },
        "deploymentOverrides": {"workersImage": "nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.6.1"},
    },
}
BETA: dict[str, Any] = {
    "apiVersion": "nvidia.com/v1beta1",
    "kind": "DynamoGraphDeploymentRequest",
    "metadata": {"name": "qwen"},
    "spec": {
        "model": "Qwen/Qwen3-32B",
        "image": "nvcr.io/nvidia/ai-dynamo/dynamo-planner:1.4.0",
        "hardware": {"gpuSku": "h200_sxm", "totalGpus": 8},
        "workload": {"isl": 3000, "osl": 150, "requestRate": 4.0},
        "sla": {"ttft": 500.0, "itl": 40.0},
        "features": {"planner": {"min_endpoint": 2}},
        "searchStrategy": "thorough",
    },
}
OWN: dict[str, Any] = {
    "apiVersion": "wattscale.io/v1alpha1",
    "kind": "InferencePowerRequest",
    "metadata": {"name": "qwen-watts"},
    "spec": {
        **BETA["spec"],
        "powerBudgetWatts": 4000,
        "pricePerKwh": 0.21,
        "objective": "goodput_per_watt",
        "outputPVC": "dynamo-pvc",
    },
}


def with_value(manifest: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a dotted path set; ``...`` removes it."""
    changed = copy.deepcopy(manifest)
    *above, last = path.split(".")
    section = changed
    for key in above:
        section = section.setdefault(key, {})
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return changed


def alpha(**spec: Any) -> PowerRequest:
    """The v1alpha1 example with keys of its spec set."""
    return parse_request({**ALPHA, "spec": {**ALPHA["spec"], **spec}})
