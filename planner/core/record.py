"""The record of an iteration: everything that ``wattscale explain`` needs, so that it never has to guess."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from planner.core import gpu_pools
from planner.core.allocation.goals import pool_goals
from planner.core.good_shares import beside, shed, with_classes
from planner.core.limits.pipeline import LimitedCounts, LimitedDeployments
from planner.core.performance.engine_model import engine
from planner.core.placement import powered
from planner.core.power import site_ledger as ledger
from planner.core.power.curve import mean_draw_mw, tail_end_mw
from planner.core.power.draw_feedback import figures
from planner.core.power.reservations import Reserved
from planner.core.publishable import Published, pending_link
from planner.core.sizing import decode_station, prefill_station
from planner.core.sizing.deployment import Sized, SizedDeployment
from planner.core.state import DeploymentState, PlannerState, PoolGoal
from planner.domain.config import OperationMode, PlannerConfig, PoolConfig
from planner.domain.demand import Allocations
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.observation import DeploymentObservation
from planner.domain.plan import DeploymentPlan, Limited, Plan, PoolPlan, PowerCut, SloReport
from planner.domain.pool import Role
from planner.domain.power import PowerFigures
from planner.domain.reading import Reading, Sample
from planner.domain.reasons import ReasonCode
from planner.domain.units import MW_PER_WATT, TickClock

READINGS = (
    "requests",
    "isl_tokens",
    "osl_tokens",
    "ttft_ms",
    "itl_ms",
    "ttft_p95_ms",
    "itl_p95_ms",
    "request_duration_s",
    "kv_hit_rate",
    "accept_length",
)
WORTH_SAYING = 0.05
"""Relative difference between learned and assumed P_u from which a note reports it."""


def record(
    reserved: Reserved,
    published: Published,
    config: PlannerConfig,
    clock: TickClock,
    deployments: Mapping[DeploymentId, DeploymentPlan] | None = None,
) -> Plan:
    """Everything that one iteration decided. ``deployments``: the records of a tick; a reaction has none."""
    state, sites, events = published.state, {}, []
    for name, site in config.sites.items():
        if powered(state, name):
            sites[name] = ledger.summary(state.power[name], site, clock.now_s)
            events.append(ledger.next_event_s(state.power[name], site, clock.now_s))
    for member, known in state.deployments.items():
        if known.pending.since_s is not None and member in config.deployments:
            events.append(known.pending.since_s + config.sites[config.deployments[member].site].patience_s)
    times = [at for at in events if at is not None and at > clock.now_s]
    return Plan(deployments or {}, sites, published.scaling, reserved.power, min(times, default=None))


def deployment_plans(
    sized: Sized, limited: LimitedDeployments, final: Allocations, published: Published, config: PlannerConfig
) -> dict[DeploymentId, DeploymentPlan]:
    """The record of every deployment's tick."""
    sites = {one.config.site for one in sized.values() if powered(published.state, one.config.site)}
    held = {site: _held(published.state, site) for site in sites}
    plans = {}
    for name, one in sized.items():
        state, allocation = published.state.deployments[name], final.get(one.config.site)
        if allocation is not None and one.config.mode is OperationMode.ADVISORY:
            # What would have been aimed at, for the record only: the next state has no goals.
            goals = pool_goals(one.config, allocation, limited[name].counts)
            state = replace(state, pending=replace(state.pending, goals=goals))
        shortfall = 0.0 if allocation is None else allocation.shortfall.get(name, 0.0)
        power = figures(config.deployments[name], state)
        lost = _unmatched(one, held.get(one.config.site))
        plans[name] = _deployment(one, limited[name], state, published.counts[name], shortfall, power, lost)
    return with_classes(plans, config.deployments)


def _deployment(
    ticked: SizedDeployment,
    granted: LimitedCounts,
    state: DeploymentState,
    counts: Mapping[PoolId, int],
    shortfall: float,
    power: Mapping[PoolId, PowerFigures],
    unmatched: tuple[Limited, ...],
) -> DeploymentPlan:
    """The record of one deployment's tick; ``counts`` are in force after it."""
    steady = _steady(ticked, granted, counts)
    observed, missing = _readings(ticked.seen)
    ttft, itl = _expected(ticked, state, counts)
    watts = _watts(ticked, state, counts)
    return DeploymentPlan(
        deployment=ticked.config.deployment,
        pools={
            name: _pool(ticked, granted, state, counts[name], name, power.get(name)) for name in ticked.config.all_pools
        },
        observed=observed,
        missing={**missing, **ticked.learned.missing},
        forecasts=dict(ticked.learned.forecasts),
        corrections=dict(state.learned.corrections),
        expected_ttft_ms=ttft,
        expected_itl_ms=itl,
        expected_watts=watts,
        expected_joules_per_token=_joules(ticked, watts),
        shortfall=shortfall,
        good=beside(ticked),
        shed=shed(ticked, state.pending.goals, counts, shortfall),
        slo=ticked.slo,
        notes=(
            *_promised(ticked.slo),
            *unmatched,
            *_cut(granted.cut),
            *granted.notes,
            *ticked.notes,
            *_taught(power),
            *steady,
        ),
        power_cut=granted.cut,
        ready=state.flow.ready,
    )


def _pool(
    ticked: SizedDeployment,
    granted: LimitedCounts,
    state: DeploymentState,
    count: int,
    name: PoolId,
    power: PowerFigures | None,
) -> PoolPlan:
    aimed, goal = granted.counts[name], state.pending.goals.get(name)
    chain = granted.chains[name]
    if goal is not None and goal.setpoint.cap_mw < tail_end_mw(ticked.config.pools[name].curve):
        chain = (*chain, _beyond(ticked.config.pools[name], goal))
    if count != aimed:
        chain = (*chain, pending_link(name, aimed, count, state.pending.placed.get(name, aimed)))
    if ticked.config.mode is OperationMode.ADVISORY:
        chain = (*chain, Limited(count, ReasonCode.ADVISORY, "advisory: shown, not published"))
    return PoolPlan(
        pool=name,
        role=ticked.config.all_pools[name].role,
        current=ticked.current[name],
        wanted=granted.wanted[name],
        granted=count,
        setpoint=goal.setpoint if goal is not None else None,
        chain=chain,
        expected_utilisation=_busy(ticked, name, count),
        power=power,
    )


def _beyond(pool: PoolConfig, goal: PoolGoal) -> Limited:
    """Why the speed at this cap is only a physical estimate."""
    cap, end = goal.setpoint.cap_mw / MW_PER_WATT, tail_end_mw(pool.curve) / MW_PER_WATT
    sentence = (
        f"{cap:.0f} W lie below the range that the power curve was fitted in ({end:.0f} W): "
        f"{100.0 * goal.speed:.0f} % of full speed are extrapolated"
    )
    return Limited(round(cap), ReasonCode.EXTRAPOLATED, sentence)


def _busy(ticked: SizedDeployment, name: PoolId, count: int) -> float | None:
    options = ticked.options.get(name) or ticked.other_options.get(name)
    return None if options is None else options.utilisation_at(count)


def _watts(ticked: SizedDeployment, state: DeploymentState, counts: Mapping[PoolId, int]) -> float | None:
    """Expected draw of the deployment's GPUs: idle watts, and for the busy share the cap or what the phase can use."""
    total = 0.0
    for name, pool in ticked.config.pools.items():
        busy, goal = _busy(ticked, name, counts[name]), state.pending.goals.get(name)
        if busy is None or goal is None:
            return None
        share = busy / max(goal.speed, 1e-6)
        total += counts[name] * pool.gpus_per_replica * mean_draw_mw(pool.curve, goal.setpoint.cap_mw, share)
    return total / MW_PER_WATT


def _joules(ticked: SizedDeployment, watts: float | None) -> float | None:
    load = ticked.learned.forecasts.get("request_rate_per_s")
    answers = ticked.learned.forecasts.get("osl_tokens")
    if watts is None or load is None or answers is None or load.mean * answers.mean <= 0:
        return None
    return watts / (load.mean * answers.mean)


def _readings(seen: DeploymentObservation | None) -> tuple[dict[str, float | None], dict[str, str]]:
    observed: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    if seen is None:
        return observed, missing
    observed["interval_s"] = seen.interval_s
    for name in READINGS:
        reading: Reading = getattr(seen, name)
        if isinstance(reading, Sample):
            observed[name] = reading.value
        else:
            missing[name] = reading.reason.value
    return observed, missing


def _expected(
    ticked: SizedDeployment, state: DeploymentState, counts: Mapping[PoolId, int]
) -> tuple[float | None, float | None]:
    """TTFT at the sized quantile and mean ITL that the granted counts should give; None where unknown."""
    load, model = ticked.load, engine(ticked.config.profile)
    if load is None or load.idle:
        return None, None
    ttft = itl = None
    for name, pool in ticked.config.pools.items():
        count, goal = counts[name], state.pending.goals.get(name)
        speed = goal.speed if goal is not None and goal.speed > 0 else 1.0
        if count <= 0:
            continue
        if pool.role is not Role.DECODE and model.prefill is not None:
            queue = prefill_station.station(
                model.prefill, load, ticked.config.ttft_quantile, ticked.corrections.prefill
            )
            ttft = queue.response_at(count, speed)
        if pool.role is not Role.PREFILL and model.decode is not None:
            itl = decode_station.itl_ms(model.decode, load, count, ticked.corrections.decode, speed)
    return ttft, itl


def _held(state: PlannerState, site: SiteId) -> gpu_pools.Held:
    return gpu_pools.held_by(page.seen for page in state.power[site].nodes.values() if page.seen is not None)


def _unmatched(ticked: SizedDeployment, held: gpu_pools.Held | None) -> tuple[Limited, ...]:
    """GPUs that fit no pool and pools that no GPU fits: none of them has a cap of its pool's."""
    if held is None:
        return ()
    lost = gpu_pools.strangers(held, ticked.config)
    return (*lost, *gpu_pools.without_gpus(held, ticked.config, ticked.seen))


def _promised(slo: SloReport | None) -> tuple[Limited, ...]:
    """What the controller of a promised share did. The value is the quantile in thousandths."""
    return () if slo is None else (Limited(round(1000.0 * slo.quantile), ReasonCode.SLO_SHARE, slo.sentence),)


def _cut(cut: PowerCut | None) -> tuple[Limited, ...]:
    if cut is None:
        return ()
    needed = Limited(cut.required_mw // MW_PER_WATT, ReasonCode.POWER_BUDGET, cut.exceeded)
    return (needed, Limited(sum(cut.after.values()), ReasonCode.POWER_BUDGET, cut.scaling_down))


def _taught(power: Mapping[PoolId, PowerFigures]) -> Iterator[Limited]:
    for name, known in power.items():
        if abs(known.p_u_mw / known.assumed_p_u_mw - 1.0) >= WORTH_SAYING:
            learned, assumed = known.p_u_mw / MW_PER_WATT, known.assumed_p_u_mw / MW_PER_WATT
            text = f"{name}: P_u {learned:.0f} W learned at {known.batch:.0f} sequences, {assumed:.0f} W assumed"
            yield Limited(round(learned), ReasonCode.P_U_LEARNED, text)


def _steady(ticked: SizedDeployment, granted: LimitedCounts, now: Mapping[PoolId, int]) -> tuple[Limited, ...]:
    """The note that nothing changes; empty if a count changes or waits to be published."""
    if any(not now[name] == ticked.current[name] == granted.counts[name] for name in ticked.config.all_pools):
        return ()
    counts = ", ".join(f"{name}={now[name]}" for name in ticked.config.all_pools)
    return (Limited(sum(now.values()), ReasonCode.STEADY, f"No scaling needed ({counts})"),)
