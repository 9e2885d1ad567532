"""Value types of scaling: decisions, what is seen of the workers, actions, progress and acknowledgements.

Frozen values without behaviour; `acknowledging.py` and `counts.py` hold the logic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

DecisionKey = tuple[str, int]
"""(incarnation, decision id). Ids are only compared within one incarnation."""


class ScalingStatus(StrEnum):
    """How far a decision has come; the values of the wire."""

    ACCEPTED = "accepted"
    APPLIED = "applied"
    PARTIAL = "partial"
    FAILED = "failed"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"


class ScalingPhase(StrEnum):
    """The stage within a status; the values of the wire.

    Of one decision they only move forward. Where nothing has to leave, DRAINED comes at once.
    """

    STARTING = "starting"
    """With ACCEPTED: replicas that are wanted do not serve yet."""
    APPLIED = "applied"
    """With APPLIED: every wanted replica serves; what became of those that left is not known yet."""
    DRAINING = "draining"
    """With APPLIED: every wanted replica serves, and others still finish requests or hold GPUs."""
    DRAINED = "drained"
    """With APPLIED: what left is gone, and its GPUs are idle. Watts may be credited."""


class WriterKind(StrEnum):
    """What sort of second writer a pool's count has; the values of a metric's label."""

    AUTOSCALER = "autoscaler"
    PERSON = "person"
    OTHER = "other"
    """Another program, or nobody knows who."""


@dataclass(frozen=True, slots=True)
class ReplicaDecision:
    """How many replicas each pool of a deployment should have. ``placements``: GPUs for new replicas, by pool."""

    decision_id: int
    incarnation: str
    replicas: Mapping[str, int]
    placements: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)

    @property
    def key(self) -> DecisionKey:
        """What tells this decision from all others of its deployment."""
        return self.incarnation, self.decision_id


@dataclass(frozen=True, slots=True)
class ScalingProblem:
    """Why a decision does not come further. ``retryable``: it may pass by itself or with another try."""

    reason: str
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class PoolSeen:
    """One pool as observed at one instant.

    ``wanted``: the count that the workers' own controller aims at now (a Deployment's ``spec.replicas``, the workers
    that a process manager keeps); None where it could not be read. ``ready``: replicas that serve.
    ``leaving``: replicas that drain or still hold GPUs; None where that is not known. ``idle``: whether the GPUs of
    those that left are idle. ``version``: opaque; a write carries it, and fails where it is no longer the newest.
    ``writer``: who set ``wanted`` last, where known, and ``writer_kind``. ``rival``: whether an autoscaler aims at the
    same target, whoever wrote last. ``hold``: why nothing may be raised now (a rollout).
    ``room``: the count to go back to, once waiting for more capacity was given up. ``at_least``: the fewest replicas
    that work there.
    """

    wanted: int | None
    ready: int
    leaving: int | None = 0
    idle: bool = True
    version: str = ""
    writer: str = ""
    writer_kind: WriterKind = WriterKind.OTHER
    rival: bool = False
    hold: str = ""
    problem: ScalingProblem | None = None
    room: int | None = None
    at_least: int = 0


@dataclass(frozen=True, slots=True)
class SetReplicas:
    """An action: make ``replicas`` the count of a pool. ``was``: the count that the action replaces.

    A state, not a change: carrying it out twice is the same as once. ``version`` as in `PoolSeen`.
    """

    pool: str
    replicas: int
    was: int
    version: str = ""
    placements: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class PoolCount:
    """One pool in an acknowledgement."""

    ready: int
    wanted: int


@dataclass(frozen=True, slots=True)
class ScalingProgress:
    """How far the decision ``key`` has come at one instant. ``phase`` None: carried out elsewhere, out of sight.

    ``complete``: every wanted replica serves.
    """

    key: DecisionKey
    complete: bool
    phase: ScalingPhase | None = None
    pools: Mapping[str, PoolCount] = field(default_factory=dict)
    problem: ScalingProblem | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What to store on the bus about one decision. ``scaled_id``: the last decision that was carried out completely."""

    decision_id: int
    incarnation: str
    scaled_id: int
    status: ScalingStatus
    phase: ScalingPhase | None = None
    reason: str = ""
    retryable: bool = True
    pools: Mapping[str, PoolCount] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether the decision needs no further work but draining."""
        ended = self.status in {ScalingStatus.APPLIED, ScalingStatus.REJECTED, ScalingStatus.SUPERSEDED}
        return (
            ended or (self.status is ScalingStatus.FAILED and not self.retryable) or self.scaled_id >= self.decision_id
        )


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What a connector knows of one deployment. All of it comes back from the bus after a restart.

    ``current``: the decision that is pursued, or the last one that was. ``settled_id``: every id up to it has its final
    acknowledgement. ``past``: incarnations that were replaced; their decisions are never taken again.
    """

    current: ReplicaDecision | None = None
    incarnation: str = ""
    scaled_id: int = -1
    settled_id: int = -1
    reported: Acknowledgement | None = None
    past: frozenset[str] = frozenset()

    @property
    def completed(self) -> bool:
        """Whether the current decision was carried out completely."""
        return self.current is not None and self.scaled_id >= self.current.decision_id

    @property
    def pursued(self) -> ReplicaDecision | None:
        """The decision to work on: the current one, unless it was refused or failed for good."""
        if self.current is None or (self.settled_id >= self.current.decision_id and not self.completed):
            return None
        return self.current
