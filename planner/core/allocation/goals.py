"""What every deployment is to run from now on: replicas and caps, remembered in its state until they are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.core.allocation import returns
from planner.core.limits import hpa_behavior
from planner.core.limits.pipeline import LimitedCounts, LimitedDeployments
from planner.core.sizing.deployment import Sized, SizedDeployment
from planner.core.slo.saturation import settled
from planner.core.state import DeploymentState, PlannerState, PoolGoal
from planner.domain.config import DeploymentConfig, OperationMode, PlannerConfig
from planner.domain.demand import Allocation, Allocations
from planner.domain.ids import PoolId
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts, TickClock

Goals = Mapping[PoolId, PoolGoal]


def aim_at(
    state: PlannerState,
    sized: Sized,
    limited: LimitedDeployments,
    final: Allocations,
    config: PlannerConfig,
    clock: TickClock,
) -> PlannerState:
    """The state that aims at the limited counts and their caps, and remembers what windows look back on."""
    deployments = {
        name: _aiming(
            _settled(one, limited[name], final.get(one.config.site), clock.now_s),
            limited[name],
            _goals(one, final.get(one.config.site), limited[name]),
            config,
            clock,
        )
        for name, one in sized.items()
    }
    return replace(state, deployments=deployments)


def _settled(
    sized: SizedDeployment, limited: LimitedCounts, allocation: Allocation | None, now_s: float
) -> SizedDeployment:
    """With a controller of a promised share that knows whether these counts can follow it."""
    if (slo := sized.state.learned.slo) is None:
        return sized
    late = 0.0 if allocation is None else allocation.shortfall.get(sized.config.deployment, 0.0)
    known = replace(sized.state.learned, slo=settled(slo, sized, limited, late, now_s))
    return replace(sized, state=replace(sized.state, learned=known))


def _aiming(
    sized: SizedDeployment, limited: LimitedCounts, goals: Goals, config: PlannerConfig, clock: TickClock
) -> DeploymentState:
    remembered_s = (sized.config.load.decode_grace_intervals + 1) * config.load_interval_s
    pools = {}
    for name, pool in sized.state.learned.pools.items():
        since = clock.seen_s - max(hpa_behavior.horizon_s(sized.config.all_pools[name]), remembered_s)
        past, gaps = hpa_behavior.trimmed(pool.recommendations, since), pool.gaps
        lasting = hpa_behavior.trimmed(pool.lasting, since)
        if (count := limited.recommended.get(name)) is not None:
            own, options = sized.config.all_pools[name], sized.options.get(name)
            past = (*past, (clock.seen_s, count))
            newest = returns.lasting(own, past)
            gaps = returns.learned(own, gaps, pool.lasting, *newest, options)
            lasting = (*lasting, newest)
        events = hpa_behavior.trimmed(pool.events, since)
        pools[name] = replace(pool, recommendations=past, lasting=lasting, gaps=gaps, events=events)
    why = {name: _binding(chain) for name, chain in limited.chains.items() if chain}
    return replace(
        sized.state,
        learned=replace(sized.state.learned, pools=pools),
        pending=replace(sized.state.pending, goals=goals, why=why, running=sized.current),
    )


def _binding(chain: Sequence[Limited]) -> Limited:
    """The last link that set the count; a shortfall only follows from that."""
    return next((link for link in reversed(chain) if link.reason is not ReasonCode.SHORTFALL), chain[-1])


def _goals(sized: SizedDeployment, allocation: Allocation | None, limited: LimitedCounts) -> Goals:
    """None where power is not managed or the deployment is only watched: its GPUs keep the caps that they have."""
    held = sized.hold is not None and sized.hold.frozen
    if allocation is None or held or sized.config.mode is not OperationMode.ACTIVE:
        return {}
    return pool_goals(sized.config, allocation, limited.counts)


def pool_goals(config: DeploymentConfig, allocation: Allocation, counts: Mapping[PoolId, int]) -> Goals:
    """What each pool is to run, with the setpoint of its GPUs."""
    found = {}
    for name, pool in config.pools.items():
        answer = allocation.pools.get((config.deployment, name))
        found[name] = (
            PoolGoal(counts[name], GpuSetpoint(Milliwatts(pool.curve.max_mw)), 1.0)
            if answer is None
            else PoolGoal(counts[name], answer.setpoint, answer.speed, answer.good)
        )
    return found
