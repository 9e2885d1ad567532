"""What can be published now: a goal becomes a decision once its GPUs' watts are reserved and the last one is done.

Owns decision ids. Must never publish a replica whose GPUs have no watts: power before pods going up. Pods before power
coming down follows, because a GPU keeps its cap until no pod holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.core import starts
from planner.core.limits import readiness
from planner.core.limits.pipeline import LimitedDeployments
from planner.core.power.reservations import Reserved, ReservedGpus
from planner.core.sizing.deployment import Sized
from planner.core.state import DeploymentState, PlannerState
from planner.domain.config import DeploymentConfig, OperationMode, PlannerConfig
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.plan import Limited, ScalingDecision
from planner.domain.reasons import ReasonCode
from planner.domain.units import TickClock


@dataclass(frozen=True, slots=True)
class Aim:
    """One deployment's counts: in force now, and aimed at. ``config`` has what is in force now."""

    config: DeploymentConfig
    current: Mapping[PoolId, int]
    goal: Mapping[PoolId, int]


@dataclass(frozen=True, slots=True)
class Published:
    """The state after deciding everything that can be published now, and those decisions."""

    state: PlannerState
    scaling: tuple[ScalingDecision, ...]
    counts: Mapping[DeploymentId, Mapping[PoolId, int]]
    """Each deployment's counts in force after it."""


def aims_of(sized: Sized, limited: LimitedDeployments) -> dict[DeploymentId, Aim]:
    """What this tick aims at."""
    return {name: Aim(one.config, one.current, limited[name].counts) for name, one in sized.items()}


def waiting_aims(reserved: Reserved, config: PlannerConfig) -> dict[DeploymentId, Aim]:
    """What the last tick aimed at but could not publish because watts were missing."""
    found = {}
    for name, known in reserved.state.deployments.items():
        goals = known.pending.goals
        if name not in reserved.deployments or known.pending.since_s is None or known.operator.paused or not goals:
            continue
        current = dict(known.flow.published)
        goal = {pool: g.replicas for pool, g in goals.items()}
        if current.keys() != goal.keys():
            current = {pool: current.get(pool, known.pending.running.get(pool, count)) for pool, count in goal.items()}
        found[name] = Aim(config.deployments[name], current, goal)
    return found


def publish(reserved: Reserved, aims: Mapping[DeploymentId, Aim], clock: TickClock) -> Published:
    """Decide which part of ``aims`` is published now: only replicas whose watts are reserved."""
    deployments, decisions, counts = dict(reserved.state.deployments), [], {}
    for name, aim in aims.items():
        deployments[name], decision, counts[name] = decide(
            deployments[name], aim, reserved.deployments.get(name), clock
        )
        decisions += [decision] if decision is not None else []
    return Published(replace(reserved.state, deployments=deployments), tuple(decisions), counts)


def powered_counts(aim: Aim, reserved: ReservedGpus | None) -> Mapping[PoolId, int]:
    """The part of the goal that may be published now: a pool grows only onto GPUs whose watts are reserved."""
    if reserved is None:
        return dict(aim.goal)
    return {
        name: count
        if count <= aim.current[name] or name in aim.config.other_pools
        else min(count, max(aim.current[name], reserved.counts.get(name, 0)))
        for name, count in aim.goal.items()
    }


def decide(
    state: DeploymentState, aim: Aim, reserved: ReservedGpus | None, clock: TickClock
) -> tuple[DeploymentState, ScalingDecision | None, Mapping[PoolId, int]]:
    """The next state, the decision to publish, and the counts that are in force after it."""
    config, now_s = aim.config, clock.now_s
    counts = powered_counts(aim, reserved)
    short = any(counts[name] < aim.goal[name] for name in counts)
    since_s = now_s if state.pending.since_s is None else state.pending.since_s
    if (waiting_since_s := since_s if short else None) != state.pending.since_s:
        state = replace(state, pending=replace(state.pending, since_s=waiting_since_s))
    grows = any(counts[name] > aim.current[name] for name in counts)
    shrinks = any(counts[name] < aim.current[name] for name in counts)
    patience_s = reserved.patience_s if reserved is not None else 0.0
    waits = short and grows and not shrinks and now_s - since_s < patience_s
    may = config.mode is OperationMode.ACTIVE and readiness.blocked(state.flow, config, now_s) is None
    if not may or waits or not (grows or shrinks):
        return state, None, aim.current if may else aim.goal
    decision = ScalingDecision(
        deployment=config.deployment,
        decision_id=state.flow.decision_id + 1,
        replicas={**_others_in_force(state, config), **counts},
        roles={name: pool.role for name, pool in config.all_pools.items()},
        placements=reserved.placements if reserved is not None else (),
        reasons=tuple(
            state.pending.why[name]
            for name in counts
            if counts[name] != aim.current[name] and name in state.pending.why
        ),
    )
    before = state.flow
    state = _decided(state, aim, counts, decision.decision_id, clock)
    if reserved is not None and reserved.workers is not None:
        sizes = {name: config.pools[name].gpus_per_replica for name in counts if name in config.pools}
        known = starts.decided(before, counts, sizes, reserved.workers)
        state = replace(state, flow=replace(state.flow, starts=known))
        decision = replace(decision, at_most=known.at_most, kept=known.kept)
    return state, decision, counts


def _others_in_force(state: DeploymentState, config: DeploymentConfig) -> Mapping[PoolId, int]:
    """Counts of pools without GPUs: a decision between two ticks does not change them, but must name them."""
    return {name: state.flow.published[name] for name in config.other_pools if name in state.flow.published}


def _decided(
    state: DeploymentState, aim: Aim, counts: Mapping[PoolId, int], decision_id: int, clock: TickClock
) -> DeploymentState:
    pools = dict(state.learned.pools)
    for name, count in counts.items():
        change = count - aim.current[name]
        if change:
            pools[name] = replace(pools[name], events=(*pools[name].events, (clock.load_now_s, change)))
    published = {**state.flow.published, **counts}
    flow = replace(state.flow, decision_id=decision_id, published=published, decided_at_s=clock.now_s)
    return replace(state, flow=flow, learned=replace(state.learned, pools=pools))


def pending_link(name: PoolId, goal: int, granted: int, placed: int) -> Limited:
    """Why replicas wait, for GPUs or for watts; ``placed`` of the goal have GPUs."""
    if placed < goal:
        return Limited(granted, ReasonCode.NO_FREE_GPU, f"{goal - placed} more {name} replicas find no free GPUs")
    return Limited(
        granted, ReasonCode.POWER_PENDING, f"{goal - granted} more {name} replicas wait until watts are reserved"
    )
