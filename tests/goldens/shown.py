"""What a golden digests: plans, orders, messages and hardware as plain tuples. The only reader of the planner's types.

Three parts of a plan: decisions (what goes out), reasons (codes, with the numbers behind them), watts (in milliwatts).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bus_schemas import v1
from deploy.fault_simulation.world import World
from planner.adapters import from_wire as wire_in
from planner.adapters import to_wire as wire_out
from planner.domain.config import DeploymentConfig
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId, SiteId
from planner.domain.plan import (
    DeploymentPlan,
    Forecast,
    GpuCapTarget,
    Limited,
    Placement,
    Plan,
    PoolPlan,
    PowerDecision,
    ScalingDecision,
    SitePlan,
)
from planner.domain.pool import Role
from planner.domain.power import PowerFigures
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts, mw_from_watts

PLAN_PARTS = ("decisions", "reasons", "watts")
DIGITS = 6
MW_PER_WATT = 1000

Shown = Any
"""Nested tuples of strings, numbers, booleans and None."""


def number(value: float | None) -> float | None:
    """Six digits: the last bits of a float are not behaviour."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.{DIGITS}g}")


NOTHING = Milliwatts(0)


def mw(value: float | None) -> int | None:
    """A whole number of milliwatts."""
    return None if value is None or not math.isfinite(value) else round(value)


def _mw_of_watts(value: float | None) -> int | None:
    return mw(None if value is None else value * MW_PER_WATT)


def _numbers(values: Mapping[str, float | None]) -> Shown:
    """Values without their names, which come from fields of types and may be renamed; so in the values' own order."""
    return tuple(sorted(number(value) for value in values.values() if value is not None))


def links(chain: Iterable[Limited]) -> Shown:
    """Codes and values of a chain, in order; not its sentences."""
    return tuple((link.reason.value, link.value) for link in chain)


def codes(plan: Plan) -> Iterator[str]:
    """Every reason in a plan, as often as it is given."""
    for deployment in plan.deployments.values():
        for chain in (deployment.notes, *(pool.chain for pool in deployment.pools.values())):
            yield from (link.reason.value for link in chain)
    for noted in (*(site.notes for site in plan.sites.values()), *(order.reasons for order in plan.power)):
        yield from (link.reason.value for link in noted)


# -- the three parts of a plan


def plan(decided: Plan) -> tuple[Shown, Shown, Shown]:
    """One step's plan: decisions, reasons, watts."""
    deployments = [decided.deployments[name] for name in sorted(decided.deployments)]
    sites = [decided.sites[name] for name in sorted(decided.sites)]
    decisions = (
        tuple(scaling_order(order) for order in decided.scaling),
        tuple(power_order(order) for order in decided.power),
        tuple(_counts(each) for each in deployments),
        number(decided.next_event_s),
    )
    reasons = (
        tuple((order.deployment, links(order.reasons)) for order in decided.scaling),
        tuple((order.node, links(order.reasons)) for order in decided.power),
        tuple(_why(each) for each in deployments),
        tuple((site.site, links(site.notes), len(site.frozen)) for site in sites),
    )
    watts = (tuple(_watts(each) for each in deployments), tuple(site_watts(site) for site in sites))
    return decisions, reasons, watts


def scaling_order(order: ScalingDecision) -> Shown:
    """All that goes out, but for the reasons."""
    return (
        order.deployment,
        order.decision_id,
        tuple((pool, order.replicas[pool], order.roles[pool].value) for pool in sorted(order.replicas)),
        tuple((hint.pool, hint.node, tuple(hint.gpus)) for hint in order.placements),
    )


def power_order(order: PowerDecision) -> Shown:
    """All that goes out, but for the reasons."""
    return (
        order.node,
        order.decision_id,
        tuple((cap.gpu, cap.setpoint.cap_mw, cap.fallback_mw, cap.charged_mw) for cap in order.caps),
        number(order.valid_for_s),
        order.raises,
        order.heard_boot,
        number(order.heard_clock_s),
        order.only_lowers,
    )


def _counts(deployment: DeploymentPlan) -> Shown:
    pools = [deployment.pools[name] for name in sorted(deployment.pools)]
    return (
        deployment.deployment,
        deployment.ready,
        tuple((p.pool, p.role.value, p.current, p.wanted, p.granted, p.setpoint and p.setpoint.cap_mw) for p in pools),
    )


def _why(deployment: DeploymentPlan) -> Shown:
    return (
        deployment.deployment,
        tuple((name, links(deployment.pools[name].chain)) for name in sorted(deployment.pools)),
        links(deployment.notes),
        _numbers(deployment.observed),
        tuple(sorted(set(deployment.missing.values()))),
        tuple(sorted(forecast(each) for each in deployment.forecasts.values())),
        _numbers(deployment.corrections),
        number(deployment.expected_ttft_ms),
        number(deployment.expected_itl_ms),
        number(deployment.shortfall),
        tuple((name, number(deployment.pools[name].expected_utilisation)) for name in sorted(deployment.pools)),
    )


def forecast(ahead: Forecast) -> Shown:
    """One quantity's band."""
    return (ahead.model, *(number(x) for x in (ahead.mean, ahead.lower, ahead.upper, ahead.horizon_s)))


def _watts(deployment: DeploymentPlan) -> Shown:
    return (
        deployment.deployment,
        _mw_of_watts(deployment.expected_watts),
        number(deployment.expected_joules_per_token),
        tuple((name, _figures(deployment.pools[name].power)) for name in sorted(deployment.pools)),
    )


def _figures(known: PowerFigures | None) -> Shown:
    if known is None:
        return None
    return (
        known.assumed_p_u_mw,
        known.p_u_mw,
        number(known.batch),
        known.samples,
        known.bounds,
        mw(known.drawn_mw),
        mw(known.expected_mw),
    )


def site_watts(site: SitePlan) -> Shown:
    """One site's sums."""
    sums = (site.budget_mw, site.charged_mw, site.enforced_mw, site.draw_mw, site.free_mw, site.shortfall_mw)
    return (site.site, *(mw(x) for x in sums))


# -- the simulated hardware of the random proof


def hardware(world: World) -> Shown:
    """Every GPU's limit as set and as enforced, in the order of the cards."""
    return tuple((card.gpu, card.requested_mw, card.enforced_mw) for card in world.cards)


# -- the contract's messages through the adapters


def from_wire(message: v1.Message) -> Shown:
    """What the planner takes from a message; None for those that it never reads as a value of its own."""
    if isinstance(message, v1.ScalingAck):
        ack = wire_in.scaling_ack(message)
        return (ack.deployment, ack.decision_id, ack.scaled_decision_id, ack.status, ack.reason)
    if isinstance(message, v1.PowerAck):
        return _power_ack(message)
    if isinstance(message, v1.NodeTelemetry):
        return _node(message)
    if isinstance(message, v1.PowerDecision):
        stored = wire_in.stored_caps(message, clock_offset_s=1000.0)
        ledger = (
            tuple(sorted((gpu, setpoint.cap_mw) for gpu, setpoint in stored.setpoints.items())),
            tuple(sorted(stored.charged_mw.items())),
        )
        return (stored.node, stored.decision_id, *ledger, stored.stored_s)
    if isinstance(message, v1.ScalingDecision):
        name, last = wire_in.last_decision(message, None, clock_offset_s=1000.0)
        replicas = tuple(sorted(last.published.items()))
        return (name, last.decision_id, replicas, last.scaled_decision_id, last.decided_at_s)
    return _control(message)


def _control(message: v1.Message) -> Shown:
    if isinstance(message, v1.BudgetChange):
        budget = wire_in.budget_command(message, sequence=7, clock_offset_s=1000.0)
        span = (budget.from_s, budget.until_s, budget.ramp_s)
        return (budget.site, budget.budget_mw, *span, budget.sequence, budget.reason)
    if isinstance(message, v1.DeploymentControl):
        order = wire_in.deployment_command(message, sequence=7)
        return (order.deployment, order.action, tuple(sorted(order.replicas.items())), order.sequence, order.reason)
    if isinstance(message, v1.NodeControl) and message.hold is not None:
        held = wire_in.hold_command(message, sequence=7, clock_offset_s=1000.0)
        assert held is not None
        return (held.node, held.hold_id, held.gpus, held.cap_mw, held.issued_s, held.for_s, held.release, held.sequence)
    if isinstance(message, v1.NodeControl):
        gone = wire_in.node_command(message, sequence=7, clock_offset_s=1000.0)
        return (gone.node, gone.action, gone.sequence, gone.reason, gone.issued_s)
    return None


def _power_ack(message: v1.PowerAck) -> Shown:
    ack = wire_in.power_ack(message)
    gpus = tuple((g.gpu, g.requested_mw, g.enforced_mw, g.healthy, g.reset) for g in ack.gpus)
    ids = (ack.node, ack.epoch, ack.decision_id, ack.applied_decision_id, ack.status)
    return (*ids, gpus, ack.reason, ack.boot, ack.clock_s, ack.incarnation)


def _node(message: v1.NodeTelemetry) -> Shown:
    seen = wire_in.node(message, age_s=1.5)
    gpus = []
    for name, gpu in sorted(seen.gpus.items()):
        limits = (gpu.draw_mw, gpu.requested_mw, gpu.enforced_mw, gpu.default_mw, gpu.min_mw, gpu.max_mw)
        holder = (gpu.deployment, gpu.pool, gpu.role.value if gpu.role else None, gpu.worker, gpu.terminating)
        gpus.append((name, gpu.gpu, *limits, gpu.healthy, *holder))
    return (seen.node, tuple(gpus), seen.age_s, seen.boot, seen.clock_s)


def to_wire(message: v1.Message, config: DeploymentConfig) -> v1.Message | None:
    """The same decision or record written by the planner's own hand; None for messages that it never writes."""
    if isinstance(message, v1.ScalingDecision):
        order = _scaling(message)
        kept: dict[str, Any] = {"epoch": message.epoch, "incarnation": message.incarnation, "at": message.time}
        return wire_out.scaling_decision(order, config, **kept)
    if isinstance(message, v1.PowerDecision):
        budget = message.budget_watts
        site = (
            None
            if budget is None
            else SitePlan(SiteId(message.site), mw_from_watts(budget), NOTHING, NOTHING, None, NOTHING)
        )
        kept = {"epoch": message.epoch, "incarnation": message.incarnation, "at": message.time}
        return wire_out.power_decision(_power(message), site, **kept)
    if isinstance(message, v1.PlanRecord):
        return wire_out.plan_record(
            _record(message),
            config,
            _site(message),
            decision_id=message.decision_id,
            scaled_decision_id=message.scaled_decision_id,
            at=message.time,
            journal=message.journal,
            problems=message.problems,
        )
    return None


def _chain(reasons: Iterable[v1.Reason], values: Iterable[int] = ()) -> tuple[Limited, ...]:
    known = {each.value for each in ReasonCode}
    given = list(values)
    pairs = [(reason, given[at] if at < len(given) else 0) for at, reason in enumerate(reasons)]
    return tuple(
        Limited(value, ReasonCode(reason.code), reason.text) for reason, value in pairs if reason.code in known
    )


def _scaling(message: v1.ScalingDecision) -> ScalingDecision:
    return ScalingDecision(
        DeploymentId(message.deployment),
        message.decision_id,
        {PoolId(name): target.replicas for name, target in message.pools.items()},
        {PoolId(name): wire_in.ROLES[target.role] for name, target in message.pools.items()},
        tuple(
            Placement(PoolId(hint.pool), NodeId(hint.node), tuple(GpuId(gpu) for gpu in hint.gpus))
            for hint in message.placements
        ),
        _chain(message.reasons),
    )


def _power(message: v1.PowerDecision) -> PowerDecision:
    caps = tuple(
        GpuCapTarget(
            GpuId(cap.gpu),
            GpuSetpoint(mw_from_watts(cap.cap_watts)),
            mw_from_watts(cap.fallback_watts),
            _mw_of_watts(cap.charged_watts),
        )
        for cap in message.caps
    )
    return PowerDecision(
        NodeId(message.node),
        message.decision_id,
        caps,
        message.valid_for_s,
        raises=False,
        reasons=_chain(message.reasons),
        heard_boot=message.heard_boot,
        heard_clock_s=message.heard_clock_s,
        only_lowers=message.only_lowers,
    )


def _record(message: v1.PlanRecord) -> DeploymentPlan:
    # A record may have watts of a pool alone; written again, they need a pool to stand in.
    pools = {PoolId(name): _pool(name, message) for name in sorted({*message.pools, *message.gpu_power})}
    forecasts = {
        name: Forecast(mean=f.mean, upper=f.upper, lower=f.lower, horizon_s=f.horizon_s, model=f.model)
        for name, f in message.forecasts.items()
    }
    return DeploymentPlan(
        deployment=DeploymentId(message.deployment),
        pools=pools,
        observed=dict(message.observed),
        missing=dict(message.missing),
        forecasts=forecasts,
        corrections=dict(message.corrections),
        expected_ttft_ms=message.expected.get("ttft_ms"),
        expected_itl_ms=message.expected.get("itl_ms"),
        expected_watts=message.expected.get("watts"),
        expected_joules_per_token=message.expected.get("joules_per_token"),
        shortfall=message.expected.get("shortfall", 0.0),
        notes=_chain(message.notes),
    )


def _pool(name: str, message: v1.PlanRecord) -> PoolPlan:
    pool = message.pools.get(name) or v1.PoolRecord(role=Role.DECODE.value, current=0, wanted=0, granted=0)
    power = message.gpu_power.get(name)
    figures = None
    if power is not None:
        assumed, known = mw_from_watts(power.assumed_p_u_watts), mw_from_watts(power.p_u_watts)
        drawn, expected = _mw_of_watts(power.drawn_watts), _mw_of_watts(power.expected_watts)
        figures = PowerFigures(assumed, known, power.batch, power.samples, power.bounds, drawn, expected)
    return PoolPlan(
        pool=PoolId(name),
        role=wire_in.ROLES[pool.role],
        current=pool.current,
        wanted=pool.wanted,
        granted=pool.granted,
        setpoint=None if pool.cap_watts is None else GpuSetpoint(mw_from_watts(pool.cap_watts)),
        chain=_chain(pool.chain, pool.values),
        expected_utilisation=pool.utilisation,
        power=figures,
    )


def _site(message: v1.PlanRecord) -> SitePlan | None:
    if message.budget_watts is None:
        return None
    figures = (message.budget_watts, message.charged_watts, message.enforced_watts)
    budget, charged, enforced = (mw_from_watts(watts or 0.0) for watts in figures)
    draw = None if message.draw_watts is None else mw_from_watts(message.draw_watts)
    return SitePlan(SiteId(message.site), budget, charged, enforced, draw, NOTHING)
