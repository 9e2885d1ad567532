"""Value types of the cap logic: decisions, readings, writes, reports, and the agent's state. All powers in milliwatts.

Frozen values without behaviour; ``caps.py`` holds the logic and re-exports them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bus_schemas.units import GpuSetpoint


class Health(StrEnum):
    """What can be done with a GPU; the values of the wire."""

    OK = "ok"
    UNCAPPABLE = "uncappable"
    QUARANTINED = "quarantined"
    UNKNOWN = "unknown"


_HEALTH_OF_ERROR = {
    "unsupported": Health.UNCAPPABLE,
    "no_permission": Health.UNCAPPABLE,
    "gpu_lost": Health.QUARANTINED,
    "reset_required": Health.QUARANTINED,
    "no_such_gpu": Health.QUARANTINED,
}


def health_of(error_kind: str | None) -> Health:
    """Health after a driver error (a value of ``DriverErrorKind``); any other error is UNKNOWN and retried."""
    return Health.OK if error_kind is None else _HEALTH_OF_ERROR.get(error_kind, Health.UNKNOWN)


@dataclass(frozen=True, slots=True)
class GpuTarget:
    """One GPU in a decision."""

    gpu: str
    setpoint: GpuSetpoint
    fallback_mw: int


@dataclass(frozen=True, slots=True)
class CapDecision:
    """A node's complete desired caps. ``heard_*``: the newest report of this node that the planner knew of."""

    epoch: int
    decision_id: int
    incarnation: str
    valid_for_s: float
    caps: tuple[GpuTarget, ...]
    heard_boot: str = ""
    heard_clock_s: float | None = None
    only_lowers: bool = False
    """The site is above its budget: renew and lower, raise nothing."""
    released: tuple[str, ...] = ()
    """GPUs that are left to others."""


@dataclass(frozen=True, slots=True)
class LimitReading:
    """One reading of a GPU: its limits and what is in force. None: the driver did not report the value."""

    gpu: str
    requested_mw: int | None
    enforced_mw: int | None
    default_mw: int
    min_mw: int
    max_mw: int
    health: Health = Health.OK
    resets: int = 0


@dataclass(frozen=True, slots=True)
class SetLimit:
    """A write to make."""

    gpu: str
    mw: int


@dataclass(frozen=True, slots=True)
class WriteResult:
    """A write that was made, and the kind of error it met, if any."""

    gpu: str
    mw: int
    error_kind: str | None = None


class Acceptance(StrEnum):
    """What was done with a received decision."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    """The decision already in force: answered again, changes nothing and renews nothing."""
    OLDER_EPOCH = "older_epoch"
    OLDER_ID = "older_id"


@dataclass(frozen=True, slots=True)
class GpuTargetState:
    """The agent's target for one GPU. ``setpoint``: as the decision named it; ``ceiling_mw``: the bound that holds now.

    The limit is lowered to the ceiling whenever it is found above it, and raised to it only with ``may_raise``.
    ``fallback_mw`` None: no decision has named one, and the hardware's minimum is used.
    """

    ceiling_mw: int
    may_raise: bool = False
    setpoint: GpuSetpoint | None = None
    fallback_mw: int | None = None
    wrote_mw: int | None = None
    tries: int = 0
    retry_s: float = float("-inf")
    resets: int = 0
    refused: bool = False
    """The driver refuses permanently to set this limit."""
    lost: bool = False
    """The limit was lost by a reset and is not restored yet."""
    returning: bool = False
    """The GPU was released: the default is written once, and no target is kept."""


@dataclass(frozen=True, slots=True)
class AgentState:
    """One node's agent. ``boot`` names the process (``<machine boot>/<process>``)."""

    boot: str
    started_s: float
    grace_s: float = 30.0
    """How long a limit found at the start is kept without any decision."""
    hold_without_decision: bool = False
    """True where no planner is expected: limits found at the start stay until a decision comes."""
    epoch: int = -1
    decision_id: int = -1
    applied_id: int = -1
    incarnation: str = ""
    past: frozenset[str] = frozenset()
    ends_s: float | None = None
    """When the caps above their fallbacks lapse; None before the first reading, and after a lapse."""
    only_lowers: bool = False
    """The newest decision only lowers: a limit below the one it names counts as carried out."""
    lines: Mapping[str, GpuTargetState] = field(default_factory=dict)
    bounds: Mapping[str, int] = field(default_factory=dict)
    foreign: frozenset[str] = frozenset()
    """GPUs that pods of no deployment hold: written for their own annotation only, until a decision names them."""


@dataclass(frozen=True, slots=True)
class InForce:
    """One GPU in a report: what was read back."""

    gpu: str
    requested_mw: int | None
    enforced_mw: int | None
    health: Health
    reset: bool


@dataclass(frozen=True, slots=True)
class CapReport:
    """What is in force, and whether the newest decision is ``applied``, ``partial`` or ``failed``."""

    epoch: int
    decision_id: int
    applied_id: int
    status: str
    gpus: tuple[InForce, ...]
