"""What goes out now: a goal becomes a decision as soon as one may be published and its GPUs' watts are reserved.

Owns decision ids. Must never publish a replica whose GPUs have no watts: power before pods going up; pods before power
coming down follows because a GPU keeps its cap until nobody holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.core.allocation.site import Reserved
from planner.core.limits import readiness
from planner.core.state import DeploymentState
from planner.domain.config import DeploymentConfig, OperationMode
from planner.domain.ids import PoolId
from planner.domain.plan import Limited, ScalingDecision
from planner.domain.reasons import ReasonCode


@dataclass(frozen=True, slots=True)
class Aim:
    """A deployment's counts: in force now, and aimed at."""

    current: Mapping[PoolId, int]
    goal: Mapping[PoolId, int]


def affordable(aim: Aim, reserved: Reserved | None) -> Mapping[PoolId, int]:
    """The part of the goal that may be published now: a pool grows only onto GPUs whose watts are reserved."""
    if reserved is None:
        return dict(aim.goal)
    return {
        name: count if count <= aim.current[name] else min(count, max(aim.current[name], reserved.counts.get(name, 0)))
        for name, count in aim.goal.items()
    }


def decide(
    config: DeploymentConfig,
    state: DeploymentState,
    aim: Aim,
    reserved: Reserved | None,
    now_s: float,
    t_s: float,
) -> tuple[DeploymentState, ScalingDecision | None, Mapping[PoolId, int]]:
    """The next state, the decision to publish, and the counts that are in force after it."""
    counts = affordable(aim, reserved)
    short = any(counts[name] < aim.goal[name] for name in counts)
    since_s = now_s if state.pending_since_s is None else state.pending_since_s
    if (pending_since_s := since_s if short else None) != state.pending_since_s:
        state = replace(state, pending_since_s=pending_since_s)
    grows = any(counts[name] > aim.current[name] for name in counts)
    shrinks = any(counts[name] < aim.current[name] for name in counts)
    patience_s = reserved.patience_s if reserved is not None else 0.0
    waits = short and grows and not shrinks and now_s - since_s < patience_s
    may = config.mode is OperationMode.ACTIVE and readiness.blocked(state, config, now_s) is None
    if not may or waits or not (grows or shrinks):
        return state, None, aim.current if may else aim.goal
    order = ScalingDecision(
        deployment=config.deployment,
        decision_id=state.decision_id + 1,
        replicas=dict(counts),
        roles={name: pool.role for name, pool in config.pools.items()},
        placements=reserved.placements if reserved is not None else (),
        reasons=tuple(state.why[name] for name in counts if counts[name] != aim.current[name] and name in state.why),
    )
    return _decided(state, aim, counts, order.decision_id, now_s, t_s), order, counts


def _decided(
    state: DeploymentState, aim: Aim, counts: Mapping[PoolId, int], decision_id: int, now_s: float, t_s: float
) -> DeploymentState:
    pools = dict(state.pools)
    for name, count in counts.items():
        change = count - aim.current[name]
        events = (*pools[name].events, (t_s, change)) if change else pools[name].events
        pools[name] = replace(pools[name], decided=count, events=events)
    return replace(state, pools=pools, decision_id=decision_id, decided_at_s=now_s)


def pending_link(name: PoolId, goal: int, granted: int, placed: int) -> Limited:
    """The word on replicas that wait for GPUs or watts; ``placed`` of the goal have GPUs."""
    if placed < goal:
        return Limited(granted, ReasonCode.NO_FREE_GPU, f"{goal - placed} more {name} replicas find no free GPUs")
    return Limited(
        granted, ReasonCode.POWER_PENDING, f"{goal - granted} more {name} replicas wait until watts are reserved"
    )
