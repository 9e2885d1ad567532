"""What the evaluation cluster is made of: one version of each, so that it is the same cluster tomorrow."""

from __future__ import annotations

KUBERNETES = "v1.34.0"
KIND_NODE = f"kindest/node:{KUBERNETES}@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a"
"""The node image of kind 0.30."""
PROMETHEUS_CHART = "oci://ghcr.io/prometheus-community/charts/kube-prometheus-stack"
PROMETHEUS_CHART_VERSION = "79.12.0"
BASE = "python:3.12.12-slim-bookworm"
"""Of our images, where no other is named."""
OLDEST_HELM = (3, 17)
"""The chart's tests render it with this one and with the newest."""
