"""The closed vocabulary of reasons. Messages, metrics, logs and ``wattscale explain`` all use it."""

from __future__ import annotations

from enum import StrEnum


class ReasonCode(StrEnum):
    """Why a number is what it is. Each member's meaning is listed in ``planner/REASONS.md``."""

    # Why a count was desired.
    SLA = "sla"
    CLASSIC = "classic"
    LOAD = "load"
    REQUEST_RATE = "request_rate"
    STEADY = "steady"
    EXTRAPOLATED = "extrapolated"
    SLO_SHARE = "slo_share"
    BACKLOG = "backlog"
    KV_CAPACITY = "kv_capacity"
    SLA_UNREACHABLE = "sla_unreachable"
    SCALE_FROM_ZERO = "scale_from_zero"
    # What limited it.
    MIN_REPLICAS = "min_replicas"
    MAX_REPLICAS = "max_replicas"
    GPU_BUDGET = "gpu_budget"
    POWER_BUDGET = "power_budget"
    POWER_PENDING = "power_pending"
    START_WATTS = "start_watts"
    NO_FREE_GPU = "no_free_gpu"
    MAX_STEP = "max_step"
    SCALE_UP_POLICY = "scale_up_policy"
    SCALE_DOWN_POLICY = "scale_down_policy"
    STABILIZATION_UP = "stabilization_up"
    STABILIZATION_DOWN = "stabilization_down"
    TOLERANCE = "tolerance"
    GRACE_PERIOD = "grace_period"
    QUEUE_TREND = "queue_trend"
    SCHEDULE = "schedule"
    PARTNER_HELD = "partner_held"
    # What held it.
    METRICS_MISSING = "metrics_missing"
    METRICS_FALLBACK = "metrics_fallback"
    MODEL_NOT_READY = "model_not_ready"
    SCALING_IN_PROGRESS = "scaling_in_progress"
    SCALING_TIMEOUT = "scaling_timeout"
    PAUSED = "paused"
    PINNED = "pinned"
    ADVISORY = "advisory"
    COMPETITOR = "competitor"
    # Power.
    BUDGET_CUT = "budget_cut"
    RENEWAL = "renewal"
    BRAKE = "brake"
    FROZEN = "frozen"
    SHORTFALL = "shortfall"
    REBALANCE = "rebalance"
    P_U_LEARNED = "p_u_learned"
    EXPECTED_GPUS = "expected_gpus"
    OUTSIDE_BUDGET = "outside_budget"
    UNANNOUNCED = "unannounced"
    POWER_OFF = "power_off"
    POOL_UNMATCHED = "pool_unmatched"
