"""Identifiers. A name is validated where it enters (configuration, bus), not here."""

from __future__ import annotations

from typing import NewType

DeploymentId = NewType("DeploymentId", str)
"""The Dynamo namespace: ``{kubernetes namespace}-{graph deployment}``."""

PoolId = NewType("PoolId", str)
"""One pool of equal workers inside a deployment: ``prefill``, ``decode``, ``aggregated``, …"""

NodeId = NewType("NodeId", str)
GpuId = NewType("GpuId", str)
"""A physical GPU's UUID, never its index: index order is not stable."""

SiteId = NewType("SiteId", str)
"""The domain of one power budget: a row, a room, a rack, a breaker."""
