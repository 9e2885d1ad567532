"""Pools: groups of equal workers. A deployment is a mapping of them, never a pair of twin variables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a worker does in the life of a request."""

    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"


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
        """Replicas that will serve once everything under way has happened."""
        return self.ready + self.starting + self.pending
