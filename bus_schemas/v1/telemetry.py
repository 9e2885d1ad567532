"""Telemetry: what a node's GPUs do, and what a planner's tick saw and decided."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bus_schemas.v1.acks import GpuHealth
from bus_schemas.v1.message import LastDecisionId, Message, Name, Part, Watts
from bus_schemas.v1.reason import Reason


class GpuTelemetry(Part):
    """One physical GPU. Absent values are unknown, not zero."""

    gpu: Name
    index: int | None = None
    model: str = ""
    draw_watts: Watts | None = None
    granted_watts: Watts | None = None
    requested_watts: Watts | None = None
    enforced_watts: Watts | None = None
    default_watts: Watts
    min_watts: Watts
    max_watts: Watts
    energy_joules: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    health: GpuHealth = GpuHealth.OK
    error: str = ""
    deployment: str = ""
    pool: str = ""
    role: str = ""
    worker: str = ""
    pod: str = ""
    terminating: bool = False


class NodeTelemetry(Message):
    """All GPUs of one node, as of ``time``."""

    type: Literal["wattscale.v1.node_telemetry"] = "wattscale.v1.node_telemetry"
    node: Name
    boot: str = ""
    clock_s: float | None = None
    """The agent's monotonic clock at the reading; see ``PowerAck.clock_s``."""
    applied_decision_id: LastDecisionId = -1
    gpus: tuple[GpuTelemetry, ...]


class PoolPowerRecord(Part):
    """What one pool's GPUs draw, beside what the power law says: watts per GPU."""

    assumed_p_u_watts: Watts
    """The most that a GPU can use at work, as configured."""
    p_u_watts: Watts
    """The same as in force: learned at ``batch`` sequences a replica."""
    batch: float = 0.0
    samples: int = 0
    """Draws below the cap that it was learned from."""
    bounds: int = 0
    """Draws at the cap, which only say: no less."""
    drawn_watts: Watts | None = None
    expected_watts: Watts | None = None


class PoolRecord(Part):
    """One pool's way from wanted to granted."""

    role: str
    current: int
    wanted: int
    granted: int
    cap_watts: Watts | None = None
    utilisation: float | None = None
    chain: tuple[Reason, ...] = ()
    """In the order in which the limits were applied."""
    values: tuple[int, ...] = ()
    """The value that each link of ``chain`` let through."""


class ForecastRecord(Part):
    """A forecast with its band."""

    mean: float
    lower: float
    upper: float
    horizon_s: float
    model: str


class PlanRecord(Message):
    """One tick of one deployment, from observation to decision: ``wattscale explain`` needs nothing else."""

    type: Literal["wattscale.v1.plan_record"] = "wattscale.v1.plan_record"
    deployment: Name
    site: str = ""
    decision_id: LastDecisionId
    scaled_decision_id: LastDecisionId = -1
    observed: dict[str, float] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)
    forecasts: dict[str, ForecastRecord] = Field(default_factory=dict)
    corrections: dict[str, float] = Field(default_factory=dict)
    pools: dict[str, PoolRecord] = Field(default_factory=dict)
    expected: dict[str, float] = Field(default_factory=dict)
    """Expected TTFT, ITL, watts, joules per token, shortfall; units in the keys."""
    gpu_power: dict[str, PoolPowerRecord] = Field(default_factory=dict)
    """By pool, where its GPUs were looked at."""
    notes: tuple[Reason, ...] = ()
    targets: dict[str, float] = Field(default_factory=dict)
    budget_watts: Watts | None = None
    charged_watts: Watts | None = None
    enforced_watts: Watts | None = None
    draw_watts: Watts | None = None
    journal: dict[str, Any] | None = None
    """The observation as recorded for replay; absent unless the journal is on."""
