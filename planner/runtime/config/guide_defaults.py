"""The defaults of Dynamo's guides, for users who follow one to the letter: ``--guide-defaults NAME``.

Anything configured overrides them. Where a guide gives no default, our own applies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROMETHEUS = "http://prometheus-kube-prometheus-prometheus.monitoring.svc.cluster.local:9090"
"""Address of kube-prometheus-stack, as the planner guide installs it."""
ONE_GPU = {"deployments.*.pools.*.gpus_per_replica": 1}

GUIDE_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # The power-aware planner guide: fixed caps, the proportional cut, a tick every 30 s.
    "power": {
        "interval_s": 30,
        "prometheus.url": PROMETHEUS,
        "sites.@.budget_watts": 1000,
        "sites.@.shortage": "proportional",
        "deployments.*.sizing": "classic",
        "deployments.*.caps": "fixed",
        "deployments.*.pools.*.max_cap_watts": 250,
        **ONE_GPU,
    },
    # The planner guide, release 0.9.
    "planner": {
        "interval_s": 180,
        "prometheus.url": PROMETHEUS,
        "deployments.*.sizing": "classic",
        "deployments.*.ttft_ms": 500,
        "deployments.*.itl_ms": 50,
        "deployments.*.expected_isl_tokens": 3000,
        "deployments.*.expected_osl_tokens": 150,
        "deployments.*.max_gpus": 8,
        "deployments.*.pools.*.min_replicas": 1,
        **ONE_GPU,
    },
    # The load-based planner guide.
    "load": {
        "interval_s": 30,
        "prometheus.url": PROMETHEUS,
        "deployments.*.sizing": "load",
        "deployments.*.metrics.pull_s": 1,
        "deployments.*.max_gpus": 8,
        "deployments.*.pools.*.min_gpus": 1,
        **ONE_GPU,
    },
}
"""Settings by dotted path, as ``dynamo_flags`` writes them."""
