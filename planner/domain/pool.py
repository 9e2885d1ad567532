"""Pools: groups of equal workers. A deployment is a mapping of pools, never a pair of twin variables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """The phase of a request that a worker serves."""

    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"
    FRONTEND = "frontend"
    """Receives requests and holds no GPU."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Workers of one pool by the state they are in.

    ``starting`` are bound to GPUs (and draw power) but do not serve; ``terminating`` drain: they hold
    GPUs and power until they are gone. ``pending`` wait for a GPU and may be cancelled.
    """

    ready: int = 0
    starting: int = 0
    terminating: int = 0
    pending: int = 0

    @property
    def wanted(self) -> int:
        """Replicas that will serve once those starting or pending are ready."""
        return self.ready + self.starting + self.pending
