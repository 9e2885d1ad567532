"""The settings of one power agent's service, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class OnExit(StrEnum):
    """What an orderly stop does with the caps."""

    KEEP = "keep"
    RESTORE = "restore"
    """Give back the limits found at the first start, only while no decision is in force."""


@dataclass(frozen=True, slots=True)
class PowerAgentSettings:
    """Settings of one node's power agent. Times in seconds on the agent's monotonic clock."""

    node: str
    telemetry_interval_s: float = 1.0
    """How often GPUs are read; telemetry is published when something changed."""
    heartbeat_s: float = 10.0
    """Telemetry is published at least this often, and three times in a lease where leases are short."""
    reconcile_interval_s: float = 15.0
    """How often GPUs are enumerated again."""
    call_timeout_s: float = 5.0
    """How long one call to the GPU driver may take before it is reported as hanging."""
    call_threads: int = 4
    grace_s: float = 30.0
    """How long limits found at the start are kept without any decision."""
    hold_without_decision: bool = False
    """Keep limits found at the start for as long as no decision comes, instead of lowering them after ``grace_s``."""
    ready_within_s: float = 45.0
    """Not ready when the last good reconcile is older."""
    dry_run: bool = False
    """Log what would be set, set nothing."""
    on_exit: OnExit = OnExit.KEEP
    boot: str = field(default="")
    """``<machine boot>/<process>``; empty: made at start."""
