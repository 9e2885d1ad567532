"""What the planner remembers from tick to tick: frozen values, all of which a restart can rebuild from the streams.

Decisions and acknowledgements come back from the bus exactly; forecasts, windows and corrections are learned again
from new observations, and until they are, limits err towards holding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.core.allocation.returns import LoadGap
from planner.core.forecast.band import Band
from planner.core.performance import factor_by_length
from planner.core.performance.prompt_span import Span
from planner.core.performance.speeds_in_force import Speeds
from planner.core.power.p_u_estimator import Drawn
from planner.core.power.site_state import PowerState
from planner.core.slo.share_controller import SloState
from planner.domain.ids import DeploymentId, GpuId, PoolId, SiteId
from planner.domain.plan import Limited, Placement
from planner.domain.units import GpuSetpoint


@dataclass(frozen=True, slots=True)
class Starts:
    """Where a budget covers workers only: what decides how many replicas may still start. ``starts.py`` has the rules.

    The last decision states ``at_most`` and ``kept``; a new leader takes them from there.
    """

    at_most: Mapping[PoolId, int] = field(default_factory=dict)
    """The most replicas of each pool that decisions may have running, those included that are to leave."""
    kept: Mapping[PoolId, int] = field(default_factory=dict)
    """GPUs of pods in ``old`` that no decision lets go: the others may be leaving already, whatever reports show."""
    old: Mapping[PoolId, frozenset[tuple[GpuId, str]]] | None = None
    """GPUs and names of the pods that lived when the last decision was published; None: every pod may be one of them.
    """
    never_start: Mapping[PoolId, int] = field(default_factory=dict)
    """GPUs by which ``at_most`` and ``kept`` overstate how many may still start: a decision adds what it grows by."""
    unstated: bool = False
    """The last decision does not state ``at_most`` (an older planner made it, or the budget covered all GPUs): any
    number may still start, until it is known to be carried out."""
    done_s: float | None = None
    """When this leader first knew that the last decision was carried out, on its clock; None: it does not know."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What was decided and how far it was carried out: the streams hold all of it.

    ``decision_id`` is -1 before the first decision. ``decided_at_s``: when the last one was published, on the planner's
    clock. ``published``: the counts in force by it.
    """

    decision_id: int = -1
    published: Mapping[PoolId, int] = field(default_factory=dict)
    scaled_decision_id: int = -1
    decided_at_s: float = 0.0
    serving_decision_id: int = -1
    """The newest decision whose replicas were all seen to serve; replicas that leave may still drain."""
    drained_decision_id: int | None = None
    """The newest decision after which nothing is left to drain; None where the connector does not report that."""
    starts: Starts = Starts()

    @property
    def ready(self) -> bool:
        """Whether the last decision was carried out completely."""
        return self.scaled_decision_id >= self.decision_id


@dataclass(frozen=True, slots=True)
class PoolState:
    """One pool's past. Times are load seconds."""

    recommendations: tuple[tuple[float, int], ...] = ()
    """(when, count recommended before limits), for the stabilization windows."""
    lasting: tuple[tuple[float, int], ...] = ()
    """(when, count that was recommended in half of the ticks around it), for a pool without a window."""
    events: tuple[tuple[float, int], ...] = ()
    """(when, change), for the rate policies."""
    gaps: tuple[LoadGap, ...] = ()
    """The newest times in which a replica was not wanted, and what its return lost: for a pool without a window."""
    most_seen: int = 0
    queued: float | None = None
    """Requests that waited at the last tick, for the trend of mode ``load``."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned from ticks: the part of a deployment's state that plan records keep for the next leader."""

    forecasts: Mapping[str, Band] = field(default_factory=dict)
    corrections: Mapping[str, float] = field(default_factory=dict)
    prompts: Span = ()
    """The prompts of the last ticks, from which the correction of prefill is learned."""
    prefill_factors: factor_by_length.Known = ()
    """The factor of prefill by the length of prompts; ``corrections`` has the one in force."""
    draws: Mapping[PoolId, Drawn] = field(default_factory=dict)
    """What the pools' GPUs drew, and the P_u estimated from it."""
    pools: Mapping[PoolId, PoolState] = field(default_factory=dict)
    metrics_at_s: float | None = None
    """Load time of the last tick with the metrics that sizing needs."""
    edited_ticks: int = 0
    """Number of consecutive ticks in which the counts had been changed by another party."""
    slo: SloState | None = None
    """The controller of the promised share of good requests; None before its first tick, or without one."""


@dataclass(frozen=True, slots=True)
class OperatorCommands:
    """What operators ordered; the streams hold it. ``sequence`` is the newest command's."""

    paused: bool = False
    pinned: Mapping[PoolId, int] | None = None
    pin_id: str | None = None
    """The command that pinned; None without a pin, or where its issuer gave it no id."""
    sequence: int = -1


@dataclass(frozen=True, slots=True)
class PoolGoal:
    """What a pool is meant to run: replicas, the setpoint of each of their GPUs, and the speed expected at it."""

    replicas: int
    setpoint: GpuSetpoint
    speed: float
    good: float | None = None
    """The share that the pool was predicted to make good; None: not predicted."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What the last tick aims at, until it is published. The next tick replaces it."""

    goals: Mapping[PoolId, PoolGoal] = field(default_factory=dict)
    """Empty where power is not managed."""
    placements: tuple[Placement, ...] = ()
    """GPUs chosen for replicas that hold none yet."""
    placed: Mapping[PoolId, int] = field(default_factory=dict)
    """Replicas that hold GPUs or have GPUs chosen."""
    since_s: float | None = None
    """Since when replicas wait for watts, on the planner's clock."""
    running: Mapping[PoolId, int] = field(default_factory=dict)
    """The counts that the last tick started from."""
    speeds: Mapping[PoolId, Speeds] | None = None
    """Of the pools' GPUs at the last tick, by the limits that stood on them; None before this leader's first tick."""
    why: Mapping[PoolId, Limited] = field(default_factory=dict)
    """The link that set each pool's count, for a decision that is published between ticks."""


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """One deployment, in four parts by how long each lives and where it comes back from after a restart."""

    flow: Flow = Flow()
    learned: Learned = Learned()
    operator: OperatorCommands = OperatorCommands()
    pending: Pending = Pending()


@dataclass(frozen=True, slots=True)
class PlannerState:
    """Everything that the planner remembers. ``epoch`` is its lease's sequence, which fences every decision."""

    epoch: int
    started_s: float
    deployments: Mapping[DeploymentId, DeploymentState] = field(default_factory=dict)
    power: Mapping[SiteId, PowerState] = field(default_factory=dict)
