"""The core's configuration: frozen values, validated before they get here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from planner.domain.daily_window import BudgetSchedule, ReplicaSchedule
from planner.domain.demand import DEFAULT_WEIGHTS, Weights
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.domain.predictor import PointModel
from planner.domain.profile import Profile
from planner.domain.request import ObservedLoad, Request
from planner.domain.units import Instant, LoadInstant, Milliwatts, TickClock


class SizingMode(StrEnum):
    """How desired replica counts are computed."""

    SLA = "sla"
    CLASSIC = "classic"
    LOAD = "load"
    SLA_LOAD = "sla+load"


class OperationMode(StrEnum):
    """Whether decisions are published."""

    ACTIVE = "active"
    ADVISORY = "advisory"
    PAUSED = "paused"


class Fallback(StrEnum):
    """The counts to use when metrics are missing for longer than ``metrics_timeout_s``."""

    HOLD = "hold"
    REPLICAS = "replicas"
    MAX_SEEN = "max_seen"


class WaitFor(StrEnum):
    """What a newer scaling decision waits for."""

    NOTHING = "nothing"
    """Nothing: the new decision takes the place of one that is still being carried out."""
    READY = "ready"
    """Until every replica of the last one serves; replicas that leave may still drain."""
    COMPLETE = "complete"
    """Until the last one was acknowledged as carried out: new replicas serve and those that leave are gone."""


class Shortage(StrEnum):
    """How deployments and pools are cut when a site's watts do not suffice."""

    JOINT = "joint"
    """Counts and caps together, by the share of requests that stay good."""
    PROPORTIONAL = "proportional"
    """Every pool keeps the same share of its count: the published rule."""


@dataclass(frozen=True, slots=True)
class LoadThresholds:
    """Mode ``load``: one replica more above the upper threshold, one fewer below the lower, at each interval.

    Queue thresholds are requests waiting per prefill replica; KV thresholds are the mean share of the cache in use.
    """

    prefill_queue_up: float = 0.5
    prefill_queue_down: float = 0.2
    decode_kv_up: float = 0.9
    decode_kv_down: float = 0.5
    decode_grace_intervals: int = 3
    """Intervals without decode scale-down after a decode replica was added: its cache fills slowly."""
    prefill_trend_intervals: int = 3
    """No prefill scale-up if the queue, by its trend, falls below the threshold within this many intervals."""


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """HPA's policy: at most ``value`` Pods or Percent within ``period_s``."""

    kind: str
    value: int
    period_s: float


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """HPA's ``scaleUp`` or ``scaleDown`` block. ``select`` is ``Max``, ``Min`` or ``Disabled``.

    ``stabilization_window_s`` None: 0 upward; downward replicas are kept by what their absence would lose.
    """

    stabilization_window_s: float | None = None
    policies: tuple[ScalingPolicy, ...] = ()
    select: str = "Max"
    tolerance: float = 0.0


SHORTEST_DOWN_WINDOW_S = 15.0
STARTS_KEPT = 5.0
"""Number of start-up times for which a replica is kept after it was last desired, until its load has shown gaps."""


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """One pool's settings: bounds, rates and power curve. Seconds of load time."""

    pool: PoolId
    role: Role
    gpus_per_replica: int
    curve: PowerCurve
    min_replicas: int = 1
    max_replicas: int = 64
    startup_s: float = 60.0
    max_step: int | None = None
    scale_up: ScalingRules = ScalingRules()
    scale_down: ScalingRules = ScalingRules()
    fallback_replicas: int | None = None
    """The count for ``Fallback.REPLICAS``."""
    learn_power: bool = True
    """Whether measured draw under load corrects the curve's P_u."""
    schedule: ReplicaSchedule | None = None
    requests_per_s: float | None = None
    """For a frontend: requests per second that one replica is meant to take."""
    component: str = ""
    """The orchestrator's name for the pool's workers; empty: the pool's own name, or recognised by its role."""

    @property
    def up_window_s(self) -> float:
        """The scale-up stabilization window in seconds."""
        return self.scale_up.stabilization_window_s or 0.0

    @property
    def down_window_s(self) -> float:
        """The scale-down window in seconds. Where none was set it grows with the start-up time: HPA's 300 s at 60 s.

        Then it is for pools without GPUs and on the way to zero; elsewhere ``core/allocation/returns.py`` decides.
        """
        chosen = self.scale_down.stabilization_window_s
        return max(SHORTEST_DOWN_WINDOW_S, STARTS_KEPT * self.startup_s) if chosen is None else chosen


@dataclass(frozen=True, slots=True)
class DeploymentConfig:
    """One deployment's settings: targets, pools, profile, and how it is sized."""

    deployment: DeploymentId
    site: SiteId
    pools: Mapping[PoolId, PoolConfig]
    profile: Profile
    ttft_ms: float = 500.0
    itl_ms: float = 50.0
    ttft_quantile: float = 0.95
    """The quantile that is sized for; where ``slo_share`` is set, the one that its controller begins with."""
    slo_share: float | None = None
    """The promised share of good requests, held by moving the quantile; None: the quantile is fixed."""
    sizing: SizingMode = SizingMode.SLA
    mode: OperationMode = OperationMode.ACTIVE
    predictor: str = "blend"
    forecast_quantile: float | None = None
    """The band's level; None: ``ttft_quantile`` (at least the median), so that one knob moves both."""
    expected_isl_tokens: float | None = None
    """Mean input length to size for until lengths were observed; None: nothing is sized until then."""
    expected_osl_tokens: float | None = None
    """Likewise the mean output length."""
    drain_backlog_s: float = 30.0
    max_gpus: int | None = None
    priority: int = 0
    service_class: str | None = None
    """The operator's word for the kind of load; figures are grouped by it, and no decision depends on it."""
    scaling_timeout_s: float = 1800.0
    wait_for: WaitFor | None = None
    """What a newer decision waits for, at most ``scaling_timeout_s``; None: see ``waits_for``."""
    metrics_timeout_s: float = 300.0
    """Seconds of load time without the metrics that sizing needs, after which ``fallback`` applies."""
    fallback: Fallback = Fallback.HOLD
    load: LoadThresholds = LoadThresholds()
    correction: bool = True
    """Whether observed TTFT and ITL correct the profile (the opposite of Dynamo's ``no_correction``)."""
    other_pools: Mapping[PoolId, PoolConfig] = field(default_factory=dict)
    """Pools without GPUs (frontends), to which neither watts nor the model apply."""
    history: tuple[Request, ...] = ()
    """A recorded trace that forecasts learn before the first interval (Dynamo's ``load_predictor_warmup_trace``)."""
    past_load: tuple[ObservedLoad, ...] = ()
    """Or what was observed of the past days, oldest first, each interval at its own time of the day."""

    @property
    def waits_for(self) -> WaitFor:
        """``wait_for``; by default nothing, but completion in the published modes, which start from running counts."""
        if self.wait_for is not None:
            return self.wait_for
        return WaitFor.NOTHING if self.sizing is SizingMode.SLA else WaitFor.COMPLETE

    @property
    def all_pools(self) -> Mapping[PoolId, PoolConfig]:
        """Pools with and without GPUs."""
        return {**self.pools, **self.other_pools} if self.other_pools else self.pools

    def together(self) -> DeploymentConfig:
        """The same deployment with both kinds of pools in ``pools``: for limits, which are the same for both."""
        return replace(self, pools=self.all_pools, other_pools={}) if self.other_pools else self

    @property
    def forecast_level(self) -> float:
        """The quantile of the forecasts' band, at least 0.5: below, forecasts would be systematically too low."""
        return max(0.5, self.ttft_quantile) if self.forecast_quantile is None else self.forecast_quantile


class Covers(StrEnum):
    """Which GPUs a site's budget covers."""

    ALL_GPUS = "all_gpus"
    WORKERS = "workers"
    """Only GPUs that the site's deployments hold, and those reserved for their replicas."""


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """One site's power settings, in milliwatts and seconds of the agents' real time."""

    site: SiteId
    budget_mw: Milliwatts
    host_overhead_mw_per_node: Milliwatts = Milliwatts(0)
    margin_mw: Milliwatts = Milliwatts(0)
    lease_s: float = 30.0
    settle_s: float = 2.0
    clock_skew: float = 0.01
    flight_s: float = 1.0
    fallback_mw: Milliwatts | None = None
    """The cap that a GPU falls to when its lease ends; None: its hardware minimum."""
    smallest_budget_mw: Milliwatts | None = None
    """The smallest budget known in advance (schedules, contracts); it bounds the fallbacks."""
    smallest_step_mw: Milliwatts = Milliwatts(5000)
    expected_gpus: int | None = None
    """Number of GPUs that the site has: those not yet reported are charged at the highest limit of any reported one."""
    expected_nodes: int | None = None
    """Number of nodes that hold them, for the overhead; None: as few as the size of the largest reported node
    allows."""
    covers: Covers = Covers.ALL_GPUS
    deployments: frozenset[DeploymentId] = frozenset()
    """The site's deployments: where only workers are covered, their pods' GPUs are."""
    shortage: Shortage = Shortage.JOINT
    weights: Weights = DEFAULT_WEIGHTS
    """How the joint choice of counts and caps weighs its goals."""
    schedule: BudgetSchedule | None = None
    utc_at_zero_s: float = 0.0
    """UTC seconds at 0 of the planner's clock (0 where that clock is UTC itself); for the schedule only."""
    nodes: tuple[str, ...] = ("*",)
    """Shell patterns of the node names that draw from this budget; the sites of one planner must not overlap."""
    answer_s: float = 3.0
    """A node that has not acknowledged a decision for this long is not relied on to lower anything."""
    stale_s: float = 15.0
    """A node without a report for this long gets no raise."""
    compliance_s: float = 10.0
    """How long after a cut, or after a limit was lost, charges may be above the budget before it is a violation."""
    highest_gpu_mw: Milliwatts = Milliwatts(5_000_000)
    """More than any card of the site can draw or be limited to: a report with more is left out."""
    most_gpus_per_node: int = 64
    """More GPUs than any node of the site has: a report of more is left out."""

    @property
    def patience_s(self) -> float:
        """Seconds that a scale-up waits for ALL of its watts before the affordable part is published alone.

        Long enough to lower caps elsewhere: acknowledged within ``answer_s``, or within the same time again after a
        second attempt, and then settled.
        """
        return 2.0 * self.answer_s + self.settle_s


@dataclass(frozen=True, slots=True)
class PlannerConfig:
    """All settings of one planner process."""

    deployments: Mapping[DeploymentId, DeploymentConfig] = field(default_factory=dict)
    sites: Mapping[SiteId, SiteConfig] = field(default_factory=dict)
    interval_s: float = 30.0
    load_time_scale: float = 1.0
    """Seconds of load time per second of the clock. 1 in production; above 1 where a recorded load is replayed
    faster than real time while leases and settle times keep real seconds."""
    utc_at_zero_s: float = 0.0
    """UTC seconds at 0 of the clock (0 where that clock is UTC itself); for schedules only."""
    release_caps: bool = False
    """Power is switched off, and limits that earlier decisions lowered are restored."""
    predictors: Mapping[str, PointModel] = field(default_factory=dict)
    """Fresh forecast models besides the core's own (ARIMA, Prophet), by the name that a deployment uses."""

    def load_now_s(self, now_s: float) -> LoadInstant:
        """The load instant at ``now_s``: load seconds, for windows, horizons and forecasts."""
        return LoadInstant(now_s * self.load_time_scale)

    def clock(self, now_s: float, seen_s: float | None = None) -> TickClock:
        """The instants of an iteration at ``now_s``.

        ``seen_s``: when the deployments were observed, where that is earlier than now (a tick that is decided late).
        """
        seen_s = now_s if seen_s is None else seen_s
        return TickClock(Instant(now_s), self.load_now_s(now_s), self.load_now_s(seen_s), self.utc_at_zero_s + seen_s)

    @property
    def load_interval_s(self) -> float:
        """The interval in seconds of load time."""
        return self.interval_s * self.load_time_scale
