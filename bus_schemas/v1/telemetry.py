"""Telemetry: readings of a node's GPUs, and what the planner observed and decided in a tick."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from bus_schemas.v1.acks import GpuHealth
from bus_schemas.v1.message import LastDecisionId, Message, Name, Part, Time, Watts, present
from bus_schemas.v1.reason import Reason


class GpuTelemetry(Part):
    """One physical GPU. An absent value is unknown, not zero."""

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
    """The pod is being deleted. Without a ``deployment``: the API server does not list it, so it may be anybody's."""


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
    """Measured draw of one pool's GPUs beside the draw that the power model expects. Watts per GPU."""

    assumed_p_u_watts: Watts
    """The most that a working GPU can use, as configured."""
    p_u_watts: Watts
    """The value in use, learned at ``batch`` sequences per replica."""
    batch: float = 0.0
    samples: int = 0
    """Draws below the cap from which it was learned."""
    bounds: int = 0
    """Draws at the cap, which are only lower bounds."""
    drawn_watts: Watts | None = None
    expected_watts: Watts | None = None


class PoolRecord(Part):
    """The steps from one pool's desired to its published replicas: ``wanted`` before limits, ``granted`` after them."""

    role: str
    current: int
    wanted: int
    granted: int
    cap_watts: Watts | None = None
    utilisation: float | None = None
    chain: tuple[Reason, ...] = ()
    """Reasons in the order in which the limits were applied."""
    values: tuple[int, ...] = ()
    """The replica count after each entry of ``chain``."""
    min_replicas: int | None = None
    max_replicas: int | None = None
    """The pool's bounds as configured; absent in records of earlier versions."""


class ForecastRecord(Part):
    """A forecast with its band."""

    mean: float
    lower: float
    upper: float
    horizon_s: float
    model: str


class GoodShareRecord(Part):
    """The share of one phase within its target over the last interval, 0..1: as the tick before predicted it, and as
    the engines' histograms have it. Absent: not known."""

    predicted: float | None = None
    measured: float | None = None


class ClassShedRecord(Part):
    """What a gateway should do with the load of one class of service: its deployments on the record's site together.

    Shares of the class's load, 0..1, at the forecast rates. All are absent where the rate of a deployment that is short
    is not known.
    """

    req_per_s: float | None = None
    """What arrives at the class."""
    late_share: float | None = None
    """Predicted to be late while nothing is shed."""
    shed_share: float | None = None
    """To shed or to delay, so that the rest is in time."""
    shed_req_per_s: float | None = None


class ShedRecord(Part):
    """What a gateway should do where not all load can be served in time. Shares of the load that arrives, 0..1."""

    priority: int = 0
    """The deployment's priority; load of lower priority goes first."""
    late_share: float
    """Predicted to be late while nothing is shed."""
    shed_share: float
    """To shed or to delay, so that the rest is in time."""
    shed_req_per_s: float | None = None
    by_class: dict[str, ClassShedRecord] | None = None
    """By class of service: every class of the site of which something will be late. Absent where no class is set."""

    @model_serializer(mode="wrap")
    def _without_absent(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return present(written(self), "by_class")


class ErrorBudgetRecord(Part):
    """The error budget of a promised share in one period, a day or a month of UTC."""

    since: Time
    """From when on requests were counted: the start of the period, or of the planner's memory."""
    requests: float
    late: float
    left: float
    """The part of the allowed late requests that is left, of those allowed so far; below 0: overspent."""


class SloRecord(Part):
    """The promised share of good requests, and what its controller did in the tick."""

    slo_share: float
    quantile: float
    """The quantile that the tick was sized for."""
    good_share: float | None = None
    """Measured in the last interval; absent: not measured."""
    requests: float = 0.0
    burn_rate: float | None = None
    """Late requests over allowed ones in the last hour."""
    day: ErrorBudgetRecord
    month: ErrorBudgetRecord


class PlanRecord(Message):
    """One tick of one deployment, from observation to decision: all that ``wattscale explain`` needs."""

    type: Literal["wattscale.v1.plan_record"] = "wattscale.v1.plan_record"
    deployment: Name
    site: str = ""
    service_class: Name | None = None
    """The operator's word for the kind of load; absent where none is set."""
    decision_id: LastDecisionId
    scaled_decision_id: LastDecisionId = -1
    load_time_scale: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Seconds of load per second of the clock, where a load is replayed at another speed: ``interval_s``, rates and
    forecasts are in the load's time. Absent: 1."""
    observed: dict[str, float] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)
    forecasts: dict[str, ForecastRecord] = Field(default_factory=dict)
    corrections: dict[str, float] = Field(default_factory=dict)
    pools: dict[str, PoolRecord] = Field(default_factory=dict)
    expected: dict[str, float] = Field(default_factory=dict)
    """Expected TTFT, ITL, watts, joules per token, shortfall; units in the keys."""
    good: dict[str, GoodShareRecord] = Field(default_factory=dict)
    """By phase: ``prompts``, ``answers``, or ``requests`` where one pool serves both."""
    shed: ShedRecord | None = None
    """Absent while all load can be served."""
    slo: SloRecord | None = None
    """Absent where no share of good requests is promised."""
    gpu_power: dict[str, PoolPowerRecord] = Field(default_factory=dict)
    """By pool, for pools whose GPUs report telemetry."""
    notes: tuple[Reason, ...] = ()
    problems: tuple[Reason, ...] = ()
    """What the planner finds wrong around it: a second agent of a node, a node that floods the bus, no node at all."""
    targets: dict[str, float] = Field(default_factory=dict)
    budget_watts: Watts | None = None
    charged_watts: Watts | None = None
    enforced_watts: Watts | None = None
    draw_watts: Watts | None = None
    journal: dict[str, Any] | None = None
    """The observation as recorded for replay; absent unless the journal is on."""
    pin_id: Name | None = None
    """``command_id`` of the pin that is in force; absent without a pin, or with one that has none."""

    @model_serializer(mode="wrap")
    def _without_absent(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return present(written(self), "pin_id", "slo", "service_class", "load_time_scale")
