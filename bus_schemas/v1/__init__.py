"""Messages v1. They only grow by optional fields; any other change is a v2 beside them."""

from bus_schemas.v1.acks import (
    AckPhase,
    AckStatus,
    GpuHealth,
    GpuInForce,
    PoolProgress,
    PowerAck,
    RestartProgress,
    ScalingAck,
)
from bus_schemas.v1.control import BudgetChange, DeploymentControl, GpuHold, NodeControl, RestartOrder
from bus_schemas.v1.decisions import GpuCap, PlacementHint, PoolTarget, PowerDecision, ScalingDecision
from bus_schemas.v1.message import Message
from bus_schemas.v1.reason import Reason
from bus_schemas.v1.system import DeadLetter, Lease
from bus_schemas.v1.telemetry import (
    ClassShedRecord,
    ErrorBudgetRecord,
    ForecastRecord,
    GoodShareRecord,
    GpuTelemetry,
    NodeTelemetry,
    PlanRecord,
    PoolPowerRecord,
    PoolRecord,
    ShedRecord,
    SloRecord,
)

MESSAGES: tuple[type[Message], ...] = (
    ScalingDecision,
    PowerDecision,
    ScalingAck,
    PowerAck,
    NodeTelemetry,
    PlanRecord,
    BudgetChange,
    DeploymentControl,
    NodeControl,
    Lease,
    DeadLetter,
)

__all__ = [
    "MESSAGES",
    "AckPhase",
    "AckStatus",
    "BudgetChange",
    "ClassShedRecord",
    "DeadLetter",
    "DeploymentControl",
    "ErrorBudgetRecord",
    "ForecastRecord",
    "GoodShareRecord",
    "GpuCap",
    "GpuHealth",
    "GpuHold",
    "GpuInForce",
    "GpuTelemetry",
    "Lease",
    "Message",
    "NodeControl",
    "NodeTelemetry",
    "PlacementHint",
    "PlanRecord",
    "PoolPowerRecord",
    "PoolProgress",
    "PoolRecord",
    "PoolTarget",
    "PowerAck",
    "PowerDecision",
    "Reason",
    "RestartOrder",
    "RestartProgress",
    "ScalingAck",
    "ScalingDecision",
    "ShedRecord",
    "SloRecord",
]
