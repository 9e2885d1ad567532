"""Workers that can be counted: (decision, what is seen of its pools) to writes and progress. Pure.

Owns the order of writes (lowers before raises) and the question who wrote a count. Must never fight a second writer
unless it was set to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.core.scaling.scaling_types import (
    PoolCount,
    PoolSeen,
    ReplicaDecision,
    ScalingPhase,
    ScalingProblem,
    ScalingProgress,
    ScalingState,
    SetReplicas,
    WriterKind,
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to do about a decision, and how far it has come.

    ``foreign``: by pool, who else sets its count: an autoscaler that aims at it, or the writer of another count.
    """

    actions: tuple[SetReplicas, ...]
    progress: ScalingProgress
    foreign: Mapping[str, WriterKind] = field(default_factory=dict)


def in_force_by_us(state: ScalingState, written: Mapping[str, int]) -> Mapping[str, int]:
    """By pool, the count that was in force by us: ``written`` since this process began, and what was completed before.

    ``written``: the count of each pool's last write that was carried out.
    """
    completed = state.current.replicas if state.current is not None and state.completed else {}
    return {**completed, **written}


def compare(
    decision: ReplicaDecision,
    seen: Mapping[str, PoolSeen],
    written: Mapping[str, int],
    *,
    overwrite: bool = False,
) -> Comparison:
    """Compare a decision with its pools.

    ``written``: what `in_force_by_us` gives. Where a pool in it has neither that count nor the wanted one, somebody
    else wrote it: it is left alone and named, or written again with ``overwrite``. A pool that is absent from ``seen``
    could not be read.
    """
    lowers: list[SetReplicas] = []
    raises: list[SetReplicas] = []
    foreign = {
        pool: WriterKind.AUTOSCALER for pool in sorted(decision.replicas) if (one := seen.get(pool)) and one.rival
    }
    problems: list[ScalingProblem] = []
    for pool, target in sorted(decision.replicas.items()):
        one = seen.get(pool)
        if one is None or one.wanted is None:
            problems.append((one.problem if one else None) or ScalingProblem(f"{pool}: its count cannot be read now"))
            continue
        # What stays must be there: a raise beyond the decision would have no watts.
        least = min(one.at_least, one.wanted)
        goal = max(least, target if one.room is None else min(target, one.room))
        if target < least:
            words = f"{pool}: {target} replicas do not work there: at least {least} must stay"
            problems.append(ScalingProblem(words, retryable=False))
        if one.wanted != goal:
            if one.wanted != written.get(pool, one.wanted):
                foreign.setdefault(pool, one.writer_kind)
                problems.append(_second_writer(pool, one, target))
                if not overwrite:
                    continue
            if one.wanted < goal and one.hold:
                problems.append(ScalingProblem(f"{pool}: nothing is raised now: {one.hold}"))
            else:
                spots = decision.placements.get(pool, ())
                write = SetReplicas(pool, goal, one.wanted, one.version, spots if one.wanted < goal else ())
                (lowers if goal < one.wanted else raises).append(write)
        if one.problem is not None and (one.room is None or target > one.room):
            # Pods without a place that the decision does not want any more are no lack of capacity.
            problems.append(one.problem)
    return Comparison((*lowers, *raises), _progress(decision, seen, problems), foreign)


def _second_writer(pool: str, seen: PoolSeen, target: int) -> ScalingProblem:
    who = seen.writer or "somebody else"
    return ScalingProblem(f"{pool}: {who} set {seen.wanted} replicas where the decision has {target}")


def _progress(
    decision: ReplicaDecision, seen: Mapping[str, PoolSeen], problems: list[ScalingProblem]
) -> ScalingProgress:
    pools = {
        pool: PoolCount(ready=seen[pool].ready if pool in seen else 0, wanted=target)
        for pool, target in decision.replicas.items()
    }
    complete = all(_in_force(seen.get(pool), target) for pool, target in decision.replicas.items())
    problem = None
    if problems:
        lasting = all(one.retryable for one in problems)
        problem = ScalingProblem("; ".join(one.reason for one in problems), retryable=lasting)
    return ScalingProgress(
        decision.key, complete, _phase(decision, seen) if complete else ScalingPhase.STARTING, pools, problem
    )


def _in_force(seen: PoolSeen | None, target: int) -> bool:
    """Whether a pool aims at its target and all of its replicas serve. More may still serve while they leave."""
    return seen is not None and seen.wanted == target and seen.ready >= target


def _phase(decision: ReplicaDecision, seen: Mapping[str, PoolSeen]) -> ScalingPhase:
    """The phase of a decision whose counts are in force."""
    pools = [seen[pool] for pool in decision.replicas]
    surplus = any(one.ready > target for one, target in zip(pools, decision.replicas.values(), strict=True))
    if surplus or any(one.leaving for one in pools):
        return ScalingPhase.DRAINING
    if any(one.leaving is None for one in pools):
        return ScalingPhase.APPLIED
    return ScalingPhase.DRAINED if all(one.idle for one in pools) else ScalingPhase.DRAINING
