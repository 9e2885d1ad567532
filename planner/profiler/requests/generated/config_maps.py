"""The ConfigMaps of a request: what was generated, and the profile that planners read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.adapters.profiles import DECODE_FILES, META_FILE, PREFILL_FILES
from planner.profiler.requests.generated.graph_components import PROFILE_MAP
from planner.profiler.requests.power_request import PowerRequest

GRAPH_FILE = "config_with_planner.yaml"
"""Dynamo's name of the generated deployment in its output."""
PROFILE_FILES = (PREFILL_FILES[-1], DECODE_FILES[-1])
RESULT_FILES = (*PROFILE_FILES, META_FILE)
"""What a profile consists of where it is text."""


def output_map(request: PowerRequest, texts: Mapping[str, str]) -> dict[str, Any]:
    """``dgdr-output-<name>``: files by name, the deployment as ``config_with_planner.yaml`` among them."""
    return _config_map(request, request.output_name, request.namespace, texts)


def profile_map(request: PowerRequest, texts: Mapping[str, str]) -> dict[str, Any]:
    """``planner-profile-data``, in the namespace of the deployment. Raises KeyError where a file is missing."""
    kept = {name: texts[name] for name in PROFILE_FILES}
    if META_FILE in texts:
        kept[META_FILE] = texts[META_FILE]
    return _config_map(request, PROFILE_MAP, request.deployment_namespace, kept)


def _config_map(request: PowerRequest, name: str, namespace: str, data: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": request.labels},
        "data": dict(data),
    }
