"""Runs recorded ticks through the present ``step`` and compares the decisions.

Replaying keeps the recorded history: before each tick the state takes over the counts and caps that were in force.
Every difference is then that tick's own, not an echo of an earlier one, and an engine under a cap is not mistaken for
one that is slower than its profile. Watts are not replayed, because records hold observations of deployments only:
sizing and limits are compared, without a site's budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from planner.core.intake import initial_state
from planner.core.power.curve import speed
from planner.core.state import DeploymentState, PlannerState, PoolGoal
from planner.core.step import step
from planner.domain.config import DeploymentConfig, OperationMode, PlannerConfig
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.observation import DeploymentObservation, Observation
from planner.domain.plan import PoolPlan
from planner.domain.units import GpuSetpoint


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """One pool's counts in one plan record, and the reason that bound them."""

    current: int
    wanted: int
    granted: int
    reason: str
    setpoint: GpuSetpoint | None = None
    """As decided for each of its GPUs; None where power was not managed."""


@dataclass(frozen=True, slots=True)
class Tick:
    """One recorded tick of one deployment."""

    deployment: DeploymentId
    now_s: float
    seen: DeploymentObservation
    pools: Mapping[PoolId, PoolCounts]


@dataclass(frozen=True, slots=True)
class Compared:
    """One pool at one tick: ``then`` as recorded, ``now`` by the present code (None if it has no such pool)."""

    deployment: DeploymentId
    now_s: float
    pool: PoolId
    then: PoolCounts
    now: PoolCounts | None
    sentence: str
    """The present code's last reason, as a sentence."""

    @property
    def same(self) -> bool:
        """Whether the desired counts agree. Granted counts also depend on watts, which are not replayed."""
        return self.now is not None and self.then.wanted == self.now.wanted


def replayed(config: PlannerConfig, ticks: Iterable[Tick]) -> Iterator[Compared]:
    """Compare every pool at every tick, in order. Raises KeyError for a deployment that ``config`` lacks."""
    states: dict[DeploymentId, DeploymentState] = {}
    goals: dict[DeploymentId, Mapping[PoolId, PoolGoal]] = {}
    for tick in ticks:
        deployment = replace(config.deployments[tick.deployment], mode=OperationMode.ADVISORY)
        alone = replace(config, deployments={tick.deployment: deployment}, sites={})
        known = states.get(tick.deployment)
        if known is None:
            known = initial_state(alone, 0, tick.now_s, (), ()).deployments[tick.deployment]
        in_force = _in_force(known, tick, goals.get(tick.deployment, {}))
        state = PlannerState(0, tick.now_s, {tick.deployment: in_force})
        state, plan = step(state, Observation({tick.deployment: tick.seen}), alone, alone.clock(tick.now_s))
        states[tick.deployment] = state.deployments[tick.deployment]
        goals[tick.deployment] = _goals(deployment, tick)
        found = plan.deployments[tick.deployment].pools
        for pool, then in tick.pools.items():
            yield _compared(tick, pool, then, found.get(pool))


def _goals(config: DeploymentConfig, tick: Tick) -> Mapping[PoolId, PoolGoal]:
    """The goals in the record: in force at the next tick, when its engines are observed."""
    return {
        name: PoolGoal(recorded.granted, recorded.setpoint, speed(config.pools[name].curve, recorded.setpoint.cap_mw))
        for name, recorded in tick.pools.items()
        if recorded.setpoint is not None and name in config.pools
    }


def _in_force(state: DeploymentState, tick: Tick, goals: Mapping[PoolId, PoolGoal]) -> DeploymentState:
    published = {**state.flow.published, **{name: pool.current for name, pool in tick.pools.items()}}
    flow, pending = replace(state.flow, published=published), replace(state.pending, goals=goals)
    return replace(state, flow=flow, pending=pending)


def _compared(tick: Tick, pool: PoolId, then: PoolCounts, found: PoolPlan | None) -> Compared:
    link = found.chain[-1] if found is not None and found.chain else None
    now = None
    if found is not None:
        now = PoolCounts(found.current, found.wanted, found.granted, link.reason.value if link else "")
    return Compared(tick.deployment, tick.now_s, pool, then, now, link.sentence if link else "")
