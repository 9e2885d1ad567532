"""Logs what was decided and why: one line per deployment and tick, one per power decision."""

from __future__ import annotations

import logging

from planner.domain.plan import DeploymentPlan, Plan, PoolPlan
from planner.domain.reasons import ReasonCode
from planner.domain.units import watts_from_mw
from planner.runtime.decision_event import DecisionEvent

log = logging.getLogger("planner.decisions")


def log_decision(decided: DecisionEvent) -> None:
    """A watcher of decisions."""
    for order in decided.plan.scaling:
        counts = ", ".join(f"{pool}={count}" for pool, count in order.replicas.items())
        why = "; ".join(dict.fromkeys(link.sentence for link in order.reasons)) or "nothing limits it"
        log.info(
            "scaling to %s: %s",
            counts,
            why,
            extra={
                "deployment": order.deployment,
                "decision_id": order.decision_id,
                "reasons": sorted({link.reason.value for link in order.reasons}),
                "epoch": decided.epoch,
            },
        )
    for name, plan in decided.plan.deployments.items():
        if plan.power_cut is not None:
            log.warning(plan.power_cut.exceeded, extra={"deployment": name, "epoch": decided.epoch})
            log.info(plan.power_cut.scaling_down, extra={"deployment": name, "epoch": decided.epoch})
        log.info(
            sentence(plan),
            extra={
                "deployment": name,
                "reasons": sorted({link.reason.value for pool in plan.pools.values() for link in pool.chain}),
                "granted": {pool.pool: pool.granted for pool in plan.pools.values()},
                "epoch": decided.epoch,
            },
        )
    _power(decided.plan, decided.epoch)


def _power(plan: Plan, epoch: int) -> None:
    for order in plan.power:
        watts = watts_from_mw(sum(cap.setpoint.cap_mw for cap in order.caps))
        level = logging.INFO if order.raises else logging.DEBUG
        sentences = "; ".join(link.sentence for link in order.reasons) or f"{order.node}: {watts:.0f} W"
        log.log(level, sentences, extra={"node": order.node, "decision_id": order.decision_id, "epoch": epoch})
    for site in plan.sites.values():
        if site.shortfall_mw or site.frozen:
            log.warning(
                "site %s: shortfall %.0f W, frozen by: %s",
                site.site,
                watts_from_mw(site.shortfall_mw),
                ", ".join(site.frozen) or "nothing",
            )


def sentence(plan: DeploymentPlan) -> str:
    """The tick in one line: the plan's notes, or each pool's path from current to granted count."""
    # A proportional cut has its own lines.
    notes = [note.sentence for note in plan.notes if note.reason is not ReasonCode.POWER_BUDGET]
    if notes:
        return "; ".join(notes)
    return "; ".join(_way(pool) for pool in plan.pools.values())


def _way(pool: PoolPlan) -> str:
    why = pool.chain[-1].sentence if pool.chain else "nothing limits it"
    return f"{pool.pool} {pool.current} -> {pool.granted} (wanted {pool.wanted}: {why})"
