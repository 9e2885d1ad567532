"""Logs what was decided and why: one line per deployment and tick, one per power decision, one per interval for a site
that is short of watts."""

from __future__ import annotations

import logging

from planner.domain.ids import SiteId
from planner.domain.plan import DeploymentPlan, Plan, PoolPlan, SitePlan
from planner.domain.reasons import ReasonCode
from planner.domain.units import watts_from_mw
from planner.runtime.decision_event import DecisionEvent

log = logging.getLogger("planner.decisions")


class DecisionLog:
    """A watcher of decisions. It remembers each site's last line, so that only news and intervals are logged."""

    def __init__(self) -> None:
        self._short: dict[SiteId, tuple[bool, tuple[str, ...]]] = {}

    def watch(self, decided: DecisionEvent) -> None:
        """Log one decision."""
        _deployments(decided.plan, decided.epoch)
        _power(decided.plan, decided.epoch)
        for site in decided.plan.sites.values():
            self._watts(site, decided.tick)

    def _watts(self, site: SitePlan, tick: bool) -> None:
        """Reactions come several times a second: they repeat nothing that an interval's line has already told."""
        before = self._short.get(site.site, (False, ()))
        now = self._short[site.site] = (site.shortfall_mw > 0, tuple(site.frozen))
        if now == (False, ()):
            if before != now:
                log.info("site %s: not short of watts any more, and nothing is frozen", site.site)
        elif tick or now != before:
            frozen = f"; raises are frozen by {', '.join(site.frozen)}" if site.frozen else ""
            log.warning(
                "site %s: %.0f W short of what is wanted%s", site.site, watts_from_mw(site.shortfall_mw), frozen
            )


def _deployments(decided: Plan, epoch: int) -> None:
    for order in decided.scaling:
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
                "epoch": epoch,
            },
        )
    for name, plan in decided.deployments.items():
        if plan.power_cut is not None:
            log.warning(plan.power_cut.exceeded, extra={"deployment": name, "epoch": epoch})
            log.info(plan.power_cut.scaling_down, extra={"deployment": name, "epoch": epoch})
        log.info(
            sentence(plan),
            extra={
                "deployment": name,
                "reasons": sorted({link.reason.value for pool in plan.pools.values() for link in pool.chain}),
                "granted": {pool.pool: pool.granted for pool in plan.pools.values()},
                "epoch": epoch,
            },
        )


def _power(plan: Plan, epoch: int) -> None:
    for order in plan.power:
        watts = watts_from_mw(sum(cap.setpoint.cap_mw for cap in order.caps))
        level = logging.INFO if order.raises else logging.DEBUG
        sentences = "; ".join(link.sentence for link in order.reasons) or f"{order.node}: {watts:.0f} W"
        log.log(level, sentences, extra={"node": order.node, "decision_id": order.decision_id, "epoch": epoch})


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
