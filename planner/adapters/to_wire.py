"""Domain to wire: planned decisions and plan records become messages. Pure; the only place that writes our messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from bus_schemas import v1
from planner.domain.config import DeploymentConfig, PoolConfig
from planner.domain.plan import (
    BudgetLeft,
    DeploymentPlan,
    Forecast,
    Limited,
    PoolPlan,
    PowerDecision,
    ScalingDecision,
    ShedAdvice,
    SitePlan,
    SloReport,
)
from planner.domain.pool import Role
from planner.domain.power import PowerFigures
from planner.domain.units import watts_from_mw

NOT_SET = -1
WireRole = Literal["prefill", "decode", "aggregated"]
WIRE_ROLES: Mapping[Role, WireRole] = {
    Role.PREFILL: "prefill",
    Role.DECODE: "decode",
    Role.AGGREGATED: "aggregated",
}


def utc(at_s: float) -> datetime:
    """The wire's time for UTC seconds."""
    return datetime.fromtimestamp(at_s, UTC)


def reasons(chain: Iterable[Limited]) -> tuple[v1.Reason, ...]:
    """The chain's codes and sentences, in order."""
    return tuple(v1.Reason(code=link.reason.value, text=link.sentence) for link in chain)


def scaling_decision(
    order: ScalingDecision, config: DeploymentConfig, *, epoch: int, incarnation: str, at: datetime
) -> v1.ScalingDecision:
    """A scaling order on the wire. Aggregated workers count as decode workers in the pair that Dynamo knows."""
    pools = {
        pool: v1.PoolTarget(
            role=WIRE_ROLES[order.roles[pool]],
            replicas=replicas,
            gpus_per_replica=config.pools[pool].gpus_per_replica if pool in config.pools else 1,
        )
        for pool, replicas in order.replicas.items()
        if order.roles[pool] in WIRE_ROLES
    }
    return v1.ScalingDecision(
        time=at,
        deployment=order.deployment,
        decision_id=order.decision_id,
        incarnation=incarnation,
        epoch=epoch,
        num_prefill_workers=_count(order, {Role.PREFILL}),
        num_decode_workers=_count(order, {Role.DECODE, Role.AGGREGATED}),
        pools=pools,
        other_pools={pool: n for pool, n in order.replicas.items() if order.roles[pool] not in WIRE_ROLES},
        placements=tuple(v1.PlacementHint(pool=p.pool, node=p.node, gpus=p.gpus) for p in order.placements),
        reasons=reasons(order.reasons),
        at_most=dict(order.at_most) or None,
        kept_gpus=dict(order.kept) or None,
    )


def _count(order: ScalingDecision, roles: set[Role]) -> int:
    counts = [replicas for pool, replicas in order.replicas.items() if order.roles[pool] in roles]
    return sum(counts) if counts else NOT_SET


def power_decision(
    order: PowerDecision, site: SitePlan | None, *, epoch: int, incarnation: str, at: datetime
) -> v1.PowerDecision:
    """A node's complete caps on the wire."""
    return v1.PowerDecision(
        time=at,
        node=order.node,
        decision_id=order.decision_id,
        incarnation=incarnation,
        epoch=epoch,
        valid_for_s=order.valid_for_s,
        caps=tuple(
            v1.GpuCap(
                gpu=cap.gpu,
                cap_watts=watts_from_mw(cap.setpoint.cap_mw),
                fallback_watts=watts_from_mw(cap.fallback_mw),
                charged_watts=_watts(cap.charged_mw),
                highest_watts=_watts(cap.highest_mw),
            )
            for cap in order.caps
        ),
        site=site.site if site else "",
        budget_watts=watts_from_mw(site.budget_mw) if site else None,
        heard_boot=order.heard_boot,
        heard_clock_s=order.heard_clock_s,
        only_lowers=order.only_lowers,
        outside_gpus=tuple([cap.gpu for cap in order.caps if cap.outside]) or None,
        released_gpus=order.released or None,
        reasons=reasons(order.reasons),
    )


def _watts(mw: int | None) -> float | None:
    return None if mw is None else watts_from_mw(max(0, mw))


def plan_record(
    plan: DeploymentPlan,
    config: DeploymentConfig,
    site: SitePlan | None,
    *,
    decision_id: int,
    scaled_decision_id: int,
    at: datetime,
    journal: dict[str, Any] | None = None,
    problems: tuple[v1.Reason, ...] = (),
    pin_id: str | None = None,
    load_time_scale: float = 1.0,
) -> v1.PlanRecord:
    """One deployment's tick, complete enough for `wattscale explain` to need nothing else."""
    return v1.PlanRecord(
        time=at,
        deployment=plan.deployment,
        site=config.site,
        service_class=config.service_class,
        decision_id=decision_id,
        scaled_decision_id=scaled_decision_id,
        load_time_scale=None if load_time_scale == 1.0 else load_time_scale,
        observed={name: value for name, value in plan.observed.items() if value is not None},
        missing=dict(plan.missing),
        forecasts={name: _forecast(forecast) for name, forecast in plan.forecasts.items()},
        corrections=dict(plan.corrections),
        pools={pool: _pool(record, config.all_pools.get(pool)) for pool, record in plan.pools.items()},
        expected=_expected(plan),
        good={
            phase: v1.GoodShareRecord(predicted=share.predicted, measured=share.measured)
            for phase, share in plan.good.items()
        },
        shed=None if plan.shed is None else _shed(plan.shed),
        slo=None if plan.slo is None else _slo(plan.slo),
        gpu_power={name: _gpu_power(pool.power) for name, pool in plan.pools.items() if pool.power is not None},
        notes=reasons((*plan.notes, *(site.notes if site else ()))),
        problems=problems,
        targets={
            "ttft_ms": config.ttft_ms,
            "itl_ms": config.itl_ms,
            "ttft_quantile": config.ttft_quantile if plan.slo is None else plan.slo.quantile,
        },
        budget_watts=_watts(site.budget_mw) if site else None,
        charged_watts=_watts(site.charged_mw) if site else None,
        enforced_watts=_watts(site.enforced_mw) if site else None,
        draw_watts=_watts(site.draw_mw) if site else None,
        journal=journal,
        pin_id=pin_id,
    )


def _shed(advice: ShedAdvice) -> v1.ShedRecord:
    by_class = {
        name: v1.ClassShedRecord(
            req_per_s=one.req_per_s,
            late_share=one.late_share,
            shed_share=one.shed_share,
            shed_req_per_s=one.shed_req_per_s,
        )
        for name, one in advice.by_class.items()
    }
    return v1.ShedRecord(
        priority=advice.priority,
        late_share=advice.late_share,
        shed_share=advice.shed_share,
        shed_req_per_s=advice.shed_req_per_s,
        by_class=by_class or None,
    )


def _slo(report: SloReport) -> v1.SloRecord:
    return v1.SloRecord(
        slo_share=report.slo_share,
        quantile=report.quantile,
        good_share=report.good_share,
        requests=report.requests,
        burn_rate=report.burn_rate,
        day=_budget_left(report.day),
        month=_budget_left(report.month),
    )


def _budget_left(known: BudgetLeft) -> v1.ErrorBudgetRecord:
    return v1.ErrorBudgetRecord(since=utc(known.since_s), requests=known.requests, late=known.late, left=known.left)


def _forecast(forecast: Forecast) -> v1.ForecastRecord:
    return v1.ForecastRecord(
        mean=forecast.mean,
        lower=forecast.lower,
        upper=forecast.upper,
        horizon_s=forecast.horizon_s,
        model=forecast.model,
    )


def _pool(plan: PoolPlan, pool: PoolConfig | None) -> v1.PoolRecord:
    return v1.PoolRecord(
        role=plan.role.value,
        current=plan.current,
        wanted=plan.wanted,
        granted=plan.granted,
        cap_watts=None if plan.setpoint is None else watts_from_mw(plan.setpoint.cap_mw),
        utilisation=plan.expected_utilisation,
        chain=reasons(plan.chain),
        values=tuple(link.value for link in plan.chain),
        min_replicas=pool.min_replicas if pool else None,
        max_replicas=pool.max_replicas if pool else None,
    )


def _gpu_power(figures: PowerFigures) -> v1.PoolPowerRecord:
    return v1.PoolPowerRecord(
        assumed_p_u_watts=watts_from_mw(figures.assumed_p_u_mw),
        p_u_watts=watts_from_mw(figures.p_u_mw),
        batch=figures.batch,
        samples=figures.samples,
        bounds=figures.bounds,
        drawn_watts=_rounded(figures.drawn_mw),
        expected_watts=_rounded(figures.expected_mw),
    )


def _rounded(mw: float | None) -> float | None:
    return None if mw is None else watts_from_mw(round(mw))


def _expected(plan: DeploymentPlan) -> dict[str, float]:
    values = {
        "ttft_ms": plan.expected_ttft_ms,
        "itl_ms": plan.expected_itl_ms,
        "watts": plan.expected_watts,
        "joules_per_token": plan.expected_joules_per_token,
        "shortfall": plan.shortfall,
    }
    return {name: value for name, value in values.items() if value is not None}
