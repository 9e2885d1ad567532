"""The plan: what one step decided, with the chain of reasons from which everything shown is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId, SiteId
from planner.domain.pool import Role
from planner.domain.power import PowerFigures
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts


@dataclass(frozen=True, slots=True)
class Limited:
    """What a limiter returns: the value it lets through, why, and one sentence for people."""

    value: int
    reason: ReasonCode
    sentence: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """A quantity ``horizon_s`` ahead: its mean and the upper quantile that capacity is sized on."""

    mean: float
    upper: float
    lower: float
    horizon_s: float
    model: str


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """One pool from desired (``wanted``) to published (``granted``). ``chain``: limits in order of application."""

    pool: PoolId
    role: Role
    current: int
    wanted: int
    granted: int
    setpoint: GpuSetpoint | None
    """The setpoint of each of its GPUs; None where power is not managed."""
    chain: tuple[Limited, ...] = ()
    expected_utilisation: float | None = None
    power: PowerFigures | None = None
    """None if no GPU of the pool was sampled."""


@dataclass(frozen=True, slots=True)
class PowerCut:
    """Counts cut in proportion to a site's watts: watts needed, watts available, and the counts that are left."""

    required_mw: int
    budget_mw: int
    before: Mapping[PoolId, int]
    after: Mapping[PoolId, int]

    @property
    def exceeded(self) -> str:
        """The published planner's first log line about the cut."""
        return f"Power budget exceeded: {self.required_mw / 1000:.12g}W > {self.budget_mw / 1000:.12g}W"

    @property
    def scaling_down(self) -> str:
        """The published planner's second log line."""
        return "Scaling down: " + ", ".join(f"{name} {n}→{self.after[name]}" for name, n in self.before.items())


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a new replica should start. A hint: an orchestrator with its own scheduler may place it elsewhere."""

    pool: PoolId
    node: NodeId
    gpus: tuple[GpuId, ...]


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """A scaling decision to publish now."""

    deployment: DeploymentId
    decision_id: int
    replicas: Mapping[PoolId, int]
    roles: Mapping[PoolId, Role]
    placements: tuple[Placement, ...] = ()
    reasons: tuple[Limited, ...] = ()
    at_most: Mapping[PoolId, int] = field(default_factory=dict)
    """The most replicas of each pool that may come up by this decision and earlier ones that are not carried out."""
    kept: Mapping[PoolId, int] = field(default_factory=dict)
    """GPUs of each pool whose pods are sure to stay."""


class GpuCapTarget(NamedTuple):
    """One GPU's setpoint and the fallback that its cap drops to when the lease ends.

    A named tuple, because a step over 10,000 GPUs makes that many, at a third of a dataclass's cost.
    """

    gpu: GpuId
    setpoint: GpuSetpoint
    fallback_mw: int
    charged_mw: int | None = None
    """The most this GPU may draw by everything published up to this decision: the next leader's ledger starts here."""
    highest_mw: int | None = None
    """The highest limit it can have, by its default or its hardware maximum, as last reported."""
    outside: bool = False
    """The budget does not cover it: no worker holds it and none is reserved for it."""


@dataclass(frozen=True, slots=True)
class PowerDecision:
    """A node's COMPLETE desired caps, to publish now. Decisions that lower go out before those with ``raises``."""

    node: NodeId
    decision_id: int
    caps: tuple[GpuCapTarget, ...]
    valid_for_s: float
    raises: bool
    reasons: tuple[Limited, ...] = ()
    heard_boot: str = ""
    heard_clock_s: float | None = None
    """The newest report of the node that this decision is based on. The lease runs from it on the agent's clock, so
    that a decision delivered late is already old when it arrives."""
    only_lowers: bool = False
    """Charges are above the budget: the agent renews and lowers, and raises no limit, not even back to its cap."""
    released: tuple[GpuId, ...] = ()
    """GPUs that are left to others: the agent gives back a limit that it had lowered, and keeps no target."""


@dataclass(frozen=True, slots=True)
class GoodShare:
    """The share of one phase within its target over the last interval: as predicted before it, and as measured."""

    predicted: float | None
    measured: float | None


@dataclass(frozen=True, slots=True)
class ClassShed:
    """The advice of all deployments of one class of service on a site together, weighed by their forecast rates.

    Shares of the class's load, 0..1. All figures are None where the rate of a deployment that is short is not known.
    """

    req_per_s: float | None = None
    """What arrives at those deployments of the class whose rate is forecast."""
    late_share: float | None = None
    shed_share: float | None = None
    shed_req_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class ShedAdvice:
    """What a gateway should shed where not all load can be served in time. Shares of the load that arrives, 0..1."""

    priority: int
    """The deployment's priority class: load of lower classes is shed first."""
    late_share: float
    """The share predicted to be late while nothing is shed."""
    shed_share: float
    """The share to shed or to delay, so that the rest is in time."""
    shed_req_per_s: float | None = None
    by_class: Mapping[str, ClassShed] = field(default_factory=dict)
    """By class of service: every class of the deployment's site with a deployment that is short."""


@dataclass(frozen=True, slots=True)
class BudgetLeft:
    """The error budget of one period: requests judged since ``since_s`` (UTC seconds), how many of them were late, and
    the part of the allowed late ones that is left (below 0: overspent)."""

    since_s: float
    requests: float
    late: float
    left: float


@dataclass(frozen=True, slots=True)
class SloReport:
    """What the controller of a promised share of good requests did in one tick, and its error budget."""

    slo_share: float
    quantile: float
    """The quantile that the tick was sized for."""
    good_share: float | None
    """The share of the last interval; None: not measured."""
    requests: float
    burn_rate: float | None
    """Late requests over allowed ones in the last hour; None without requests."""
    day: BudgetLeft
    month: BudgetLeft
    sentence: str


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """One deployment's tick, complete enough to be explained from the record alone."""

    deployment: DeploymentId
    pools: Mapping[PoolId, PoolPlan]
    observed: Mapping[str, float | None] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    forecasts: Mapping[str, Forecast] = field(default_factory=dict)
    corrections: Mapping[str, float] = field(default_factory=dict)
    expected_ttft_ms: float | None = None
    expected_itl_ms: float | None = None
    expected_watts: float | None = None
    expected_joules_per_token: float | None = None
    shortfall: float = 0.0
    """Expected share of the load that cannot be served within its targets, 0..1."""
    notes: tuple[Limited, ...] = ()
    power_cut: PowerCut | None = None
    """Set where a site cuts counts in proportion to its watts and has done so."""
    good: Mapping[str, GoodShare] = field(default_factory=dict)
    """By phase: ``prompts``, ``answers``, or ``requests`` where one pool serves both."""
    shed: ShedAdvice | None = None
    """None while all load can be served."""
    slo: SloReport | None = None
    """None where no share is promised."""
    ready: bool = True
    """``scaled_decision_id >= decision_id``: the last decision was carried out."""


@dataclass(frozen=True, slots=True)
class SitePlan:
    """One site's watts after the step, in milliwatts."""

    site: SiteId
    budget_mw: Milliwatts
    charged_mw: Milliwatts
    enforced_mw: Milliwatts
    draw_mw: Milliwatts | None
    free_mw: Milliwatts
    shortfall_mw: Milliwatts = Milliwatts(0)
    frozen: tuple[str, ...] = ()
    """Names of violated invariants that freeze raises; empty when all hold."""
    notes: tuple[Limited, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step decided. Publishing ``power`` (lowers first) and then ``scaling`` is safe at every prefix."""

    deployments: Mapping[DeploymentId, DeploymentPlan] = field(default_factory=dict)
    sites: Mapping[SiteId, SitePlan] = field(default_factory=dict)
    scaling: tuple[ScalingDecision, ...] = ()
    power: tuple[PowerDecision, ...] = ()
    next_event_s: float | None = None
    """When something is due without a new message (a settle time ends, a lease must be renewed)."""
