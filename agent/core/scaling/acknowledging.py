"""Which acknowledgements a decision gets, in which order, and which decision is pursued. Pure.

Owns the ids: they are completed in order and once. Must never complete a decision by what was seen of another one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from enum import StrEnum

from agent.core.scaling.scaling_types import (
    Acknowledgement,
    PoolCount,
    ReplicaDecision,
    ScalingPhase,
    ScalingProblem,
    ScalingProgress,
    ScalingState,
    ScalingStatus,
)

MOST_REPLICAS = 100_000
"""A count above it is a mistake, not a wish: no deployment has that many workers."""
MOST_SUPERSEDED = 1024
"""Decisions that passed unseen and are acknowledged one by one; the stream keeps no more of one deployment."""
_ORDER = {None: 0, ScalingPhase.STARTING: 1, ScalingPhase.APPLIED: 2, ScalingPhase.DRAINING: 3, ScalingPhase.DRAINED: 4}


class Received(StrEnum):
    """What became of a delivered decision."""

    TAKEN = "taken"
    RESUMED = "resumed"
    """Begun or completed by an earlier process: its work, or what it drains, is followed further."""
    REPEATED = "repeated"
    OLD = "old"
    REJECTED = "rejected"


def restored(last: Acknowledgement | None) -> ScalingState:
    """The state of a connector that has just started. ``last``: the newest stored acknowledgement, of any connector."""
    if last is None:
        return ScalingState()
    settled_id = last.decision_id if last.final else last.decision_id - 1
    return ScalingState(
        incarnation=last.incarnation,
        scaled_id=last.scaled_id,
        settled_id=max(settled_id, last.scaled_id),
        reported=last,
    )


def receive(
    state: ScalingState, decision: ReplicaDecision, pools: Collection[str] | None
) -> tuple[ScalingState, Received, tuple[Acknowledgement, ...]]:
    """Take a decision: the next state, what became of it, and the acknowledgements to store now, in order.

    ``pools``: those that this connector can scale; None: any. Decisions that this one replaces, and those that passed
    unseen, are acknowledged as superseded. May be called again with the same decision at any time.
    """
    if decision.incarnation in state.past:
        return state, Received.OLD, ()
    if decision.incarnation == state.incarnation:
        known = _known(state, decision)
        if known is not None:
            return *known, ()
    state, acks = _superseded(state, decision)
    if problem := _refusal(decision, pools):
        ack = _ack(state, decision, ScalingStatus.REJECTED, problem=problem)
        state = replace(state, current=decision, settled_id=decision.decision_id, reported=ack)
        return state, Received.REJECTED, (*acks, ack)
    ack = _ack(state, decision, ScalingStatus.ACCEPTED)
    return replace(state, current=decision, reported=ack), Received.TAKEN, (*acks, ack)


def _known(state: ScalingState, decision: ReplicaDecision) -> tuple[ScalingState, Received] | None:
    """The answer to a decision that was seen before; None for one that is new, or that was left unfinished."""
    if state.current is not None and decision.decision_id == state.current.decision_id:
        return state, Received.REPEATED
    if state.current is None and _begun(state, decision):
        return replace(state, current=decision), Received.RESUMED
    if decision.decision_id <= state.settled_id:
        return state, Received.OLD
    if state.current is not None and decision.decision_id < state.current.decision_id:
        return state, Received.OLD
    return None


def _begun(state: ScalingState, decision: ReplicaDecision) -> bool:
    """Whether a restored state is in the middle of this decision, or has completed it last."""
    if decision.decision_id == state.scaled_id:
        return True
    last = state.reported
    return last is not None and last.decision_id == decision.decision_id and not last.final


def _superseded(state: ScalingState, decision: ReplicaDecision) -> tuple[ScalingState, tuple[Acknowledgement, ...]]:
    """The state in which ``decision`` is the newest, and an acknowledgement of each id that it replaces."""
    if decision.incarnation != state.incarnation:
        acks = _unfinished(state, _open_id(state) + 1)
        past = state.past | ({state.incarnation} if state.incarnation else set())
        state = ScalingState(incarnation=decision.incarnation, past=past)
    else:
        acks = ()
    acks += _unfinished(state, decision.decision_id)
    return replace(state, settled_id=decision.decision_id - 1), acks


def _open_id(state: ScalingState) -> int:
    """The id that is being worked on; the settled one where there is none."""
    seen = state.reported.decision_id if state.reported is not None else -1
    current = state.current.decision_id if state.current is not None else -1
    return max(state.settled_id, seen, current)


def _unfinished(state: ScalingState, before_id: int) -> tuple[Acknowledgement, ...]:
    first = max(state.settled_id + 1, before_id - MOST_SUPERSEDED)
    return tuple(
        Acknowledgement(one, state.incarnation, state.scaled_id, ScalingStatus.SUPERSEDED)
        for one in range(first, before_id)
    )


def _refusal(decision: ReplicaDecision, pools: Collection[str] | None) -> ScalingProblem | None:
    """Why a decision can never be carried out here; None where it can."""
    if pools is not None and (unknown := sorted(set(decision.replicas) - set(pools))):
        have = ", ".join(sorted(pools)) or "none"
        return ScalingProblem(f"no such pool here: {', '.join(unknown)}; there are: {have}", retryable=False)
    for pool, count in sorted(decision.replicas.items()):
        if not 0 <= count <= MOST_REPLICAS:
            return ScalingProblem(f"{count} replicas of {pool}: not between 0 and {MOST_REPLICAS}", retryable=False)
    if not decision.replicas:
        return ScalingProblem("the decision names no pool", retryable=False)
    return None


def report(state: ScalingState, progress: ScalingProgress) -> tuple[ScalingState, tuple[Acknowledgement, ...]]:
    """The next state and the acknowledgement, if any, that an observation gives.

    Progress of another decision than the pursued one changes nothing. A decision is completed once: after that only a
    later phase is acknowledged, or a problem with what is in force (``partial``, with its id still completed).
    """
    decision = state.pursued
    if decision is None or progress.key != decision.key:
        return state, ()
    if state.completed:
        ack = _after_completion(state, decision, progress)
    elif progress.complete:
        state = replace(state, scaled_id=decision.decision_id, settled_id=decision.decision_id)
        ack = _ack(state, decision, ScalingStatus.APPLIED, progress.phase, progress.pools)
    else:
        ack = _before_completion(state, decision, progress)
    if ack is None or ack == state.reported:
        return state, ()
    settled_id = max(state.settled_id, ack.decision_id) if ack.final else state.settled_id
    return replace(state, reported=ack, settled_id=settled_id), (ack,)


def _before_completion(state: ScalingState, decision: ReplicaDecision, progress: ScalingProgress) -> Acknowledgement:
    if progress.problem is None:
        return _ack(state, decision, ScalingStatus.ACCEPTED, progress.phase, progress.pools)
    done = any(count.ready == count.wanted for count in progress.pools.values())
    status = ScalingStatus.PARTIAL if done and progress.problem.retryable else ScalingStatus.FAILED
    return _ack(state, decision, status, progress.phase, progress.pools, progress.problem)


def _after_completion(
    state: ScalingState, decision: ReplicaDecision, progress: ScalingProgress
) -> Acknowledgement | None:
    before = state.reported.phase if state.reported is not None else None
    if progress.problem is not None:
        phase = before if _ORDER[before] >= _ORDER[progress.phase] else progress.phase
        return _ack(state, decision, ScalingStatus.PARTIAL, phase, progress.pools, progress.problem)
    later = _ORDER[progress.phase] > _ORDER[before]
    mended = state.reported is not None and state.reported.status is ScalingStatus.PARTIAL and progress.complete
    if not later and not mended:
        return None
    return _ack(state, decision, ScalingStatus.APPLIED, progress.phase if later else before, progress.pools)


def _ack(
    state: ScalingState,
    decision: ReplicaDecision,
    status: ScalingStatus,
    phase: ScalingPhase | None = None,
    pools: Mapping[str, PoolCount] | None = None,
    problem: ScalingProblem | None = None,
) -> Acknowledgement:
    return Acknowledgement(
        decision_id=decision.decision_id,
        incarnation=decision.incarnation,
        scaled_id=state.scaled_id,
        status=status,
        phase=phase,
        reason=problem.reason if problem is not None else "",
        retryable=problem is None or problem.retryable,
        pools=dict(pools or {}),
    )
