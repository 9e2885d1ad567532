"""What is observed of deployments and GPUs at one instant, with the commands and acknowledgements since the last
one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId
from planner.domain.pool import Replicas, Role
from planner.domain.reading import NO_DATA, Reading
from planner.domain.units import GpuSetpoint, Milliwatts


@dataclass(frozen=True, slots=True)
class PoolObservation:
    """One pool. Queue depths count waiting requests, not those being served."""

    replicas: Replicas
    queued_requests: Reading = NO_DATA
    kv_usage: Reading = NO_DATA
    """Mean KV-cache use over ready workers, 0..1."""
    running_requests: Reading = NO_DATA
    mean_queued_requests: Reading = NO_DATA
    """The queue as a mean over the interval, where it is read more often than once; so is ``mean_kv_usage``."""
    mean_kv_usage: Reading = NO_DATA
    complete: bool = False
    """Whether ``replicas`` covers workers in every state, not only those that serve."""


@dataclass(frozen=True, slots=True)
class DeploymentObservation:
    """One deployment over the last ``interval_s`` seconds of load time.

    ``requests`` counts those that STARTED in the interval. TTFT and ITL are means in milliseconds over
    requests that finished the phase in the interval; ``isl_tokens`` and ``osl_tokens`` are means.
    ``isl_cv2`` is a squared coefficient of variation, where histograms allow it.
    """

    interval_s: float
    requests: Reading = NO_DATA
    isl_tokens: Reading = NO_DATA
    osl_tokens: Reading = NO_DATA
    ttft_ms: Reading = NO_DATA
    itl_ms: Reading = NO_DATA
    request_duration_s: Reading = NO_DATA
    isl_cv2: Reading = NO_DATA
    ttft_p95_ms: Reading = NO_DATA
    itl_p95_ms: Reading = NO_DATA
    ttft_within: Reading = NO_DATA
    itl_within: Reading = NO_DATA
    """Shares of first tokens and of the gaps between tokens that kept the targets, by the engines' histograms."""
    kv_hit_rate: Reading = NO_DATA
    accept_length: Reading = NO_DATA
    pools: Mapping[PoolId, PoolObservation] = field(default_factory=dict)


LEFT = "(left)"
"""In place of a worker's name: the pod is gone, its watts are not credited yet."""


@dataclass(frozen=True, slots=True)
class GpuObservation:
    """One physical GPU as last reported by its node's agent. All powers in milliwatts."""

    gpu: GpuId
    draw_mw: int | None
    requested_mw: int | None
    enforced_mw: int | None
    default_mw: int
    min_mw: int
    max_mw: int
    healthy: bool = True
    deployment: DeploymentId | None = None
    pool: PoolId | None = None
    role: Role | None = None
    worker: str | None = None
    terminating: bool = False
    """The pod is leaving. Without a deployment: the API server does not list it, so it may be anybody's."""
    component: str = ""
    """The pool's name in the worker's label, as the orchestrator writes it."""
    left_s: float | None = None
    """With worker ``LEFT``: when the planner first saw that no pod holds it any more, on the planner's clock."""


@dataclass(frozen=True, slots=True)
class NodeObservation:
    """One node's telemetry. ``boot`` (``<machine boot>/<process>``) changes when the agent process restarts."""

    node: NodeId
    gpus: Mapping[GpuId, GpuObservation]
    age_s: float = 0.0
    boot: str = ""
    clock_s: float | None = None
    """The machine's own clock at the reading: compared only within one boot of the machine, and echoed in decisions."""
    sequence: int = field(default=0, compare=False)
    """Its place in its stream."""
    missing: Mapping[GpuId, GpuObservation] = field(default_factory=dict)
    """What earlier reports had last shown of GPUs that are not in this one, where the planner keeps that."""

    def known(self, gpu: GpuId) -> GpuObservation | None:
        """What the newest report that had the GPU showed of it."""
        return self.gpus.get(gpu) or self.missing.get(gpu)


@dataclass(frozen=True, slots=True)
class ScalingAckSeen:
    """The newest acknowledgement of a deployment's scaling."""

    deployment: DeploymentId
    decision_id: int
    scaled_decision_id: int
    status: str
    reason: str = ""
    sequence: int = field(default=0, compare=False)
    """Its place in its stream."""
    phase: str = ""
    """The stage within the status; empty where the connector does not report one."""
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class GpuCapInForce:
    """One GPU inside a power acknowledgement: what is in force there, read back from the hardware."""

    gpu: GpuId
    requested_mw: int | None
    enforced_mw: int | None
    healthy: bool = True
    reset: bool = False
    """The GPU or its driver was reset since the last report: the limit may be the default."""


@dataclass(frozen=True, slots=True)
class PowerAckSeen:
    """An acknowledgement of a node's power decision, in the order of arrival."""

    node: NodeId
    epoch: int
    decision_id: int
    applied_decision_id: int
    status: str
    gpus: tuple[GpuCapInForce, ...]
    reason: str = ""
    boot: str = ""
    clock_s: float | None = None
    """As in ``NodeObservation``: orders this readback among others of the same boot."""
    incarnation: str = ""
    """Which count of ids ``decision_id`` belongs to; empty: not reported."""
    sequence: int = field(default=0, compare=False)
    """Its place in its stream."""


@dataclass(frozen=True, slots=True)
class BudgetCommand:
    """A change of a site's budget: reach ``budget_mw`` ``ramp_s`` after ``from_s``; end at ``until_s``.

    ``budget_mw`` None is a release: back to configuration and schedule.

    Times are on the planner's clock (seconds); ``sequence`` is the order on the bus: the newest wins.
    """

    site: str
    budget_mw: Milliwatts | None
    from_s: float
    until_s: float | None = None
    ramp_s: float = 0.0
    sequence: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DeploymentCommand:
    """An operator's command on one deployment: ``pause``, ``resume``, ``pin`` (with replicas) or ``release``."""

    deployment: DeploymentId
    action: str
    replicas: Mapping[PoolId, int] = field(default_factory=dict)
    sequence: int = 0
    reason: str = ""
    command_id: str | None = None


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """An operator's command on one node: ``remove`` (permanently: its charge may be dropped) or ``restore``."""

    node: NodeId
    action: str = "remove"
    sequence: int = 0
    reason: str = ""
    issued_s: float | None = None
    """On the planner's clock. A node that reported or was commanded after this instant is not gone: the
    command has no effect on it. None: now."""


@dataclass(frozen=True, slots=True)
class HoldCommand:
    """A hold on GPUs that no pool has, at ``cap_mw`` each, until ``for_s`` after it was written; or its release.

    Times are on the planner's clock; of the commands with one ``hold_id`` the one with the highest ``sequence`` counts.
    """

    node: NodeId
    hold_id: str
    gpus: tuple[GpuId, ...]
    cap_mw: Milliwatts
    issued_s: float
    for_s: float
    sequence: int = 0
    release: bool = False
    issued_by: str = ""

    @property
    def until_s(self) -> float:
        """When it ends by itself."""
        return self.issued_s + self.for_s


@dataclass(frozen=True, slots=True)
class StoredCaps:
    """The last power decision on the bus for one node, as a new leader finds it: the ledger of its predecessor.

    ``charged_mw`` by GPU: the most that each may draw by everything published so far (the wire's
    ``charged_watts``; where that is absent, the GPU's default).
    """

    node: NodeId
    decision_id: int
    setpoints: Mapping[GpuId, GpuSetpoint]
    charged_mw: Mapping[GpuId, int]
    stored_s: float = float("-inf")
    """When it was stored, on the planner's clock."""
    highest_mw: Mapping[GpuId, int] = field(default_factory=dict)
    """The highest limit of each GPU, by its default or its hardware maximum; absent if the decision names none."""
    outside: frozenset[GpuId] = frozenset()
    """GPUs that the decision caps and that the budget did not cover."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The input of one step. A deployment or node that is absent here is unknown, not empty."""

    deployments: Mapping[DeploymentId, DeploymentObservation] = field(default_factory=dict)
    nodes: Mapping[NodeId, NodeObservation] = field(default_factory=dict)
    scaling_acks: Mapping[DeploymentId, ScalingAckSeen] = field(default_factory=dict)
    power_acks: tuple[PowerAckSeen, ...] = ()
    budget_commands: tuple[BudgetCommand, ...] = ()
    deployment_commands: tuple[DeploymentCommand, ...] = ()
    node_commands: tuple[NodeCommand, ...] = ()
    hold_commands: tuple[HoldCommand, ...] = ()
