"""What of a view is older than its own term, so that nothing old is shown as now. Pure; ``now`` is an argument.

Ages compare the senders' clocks with the reader's, so they are as exact as these clocks agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from bus_schemas import v1
from deploy.views.budgets import SAME_WATTS
from deploy.views.site_view import SiteView
from deploy.views.words import amount

NODE_TERM_S = 15.0
"""Without a report for this long a node is silent: planners give it no raise either (``stale_s``)."""
TICKS_PER_TERM = 3.0
SHORTEST_TICK_TERM_S = 10.0
UNKNOWN_TICK_TERM_S = 180.0
CLOCKS_APART_S = 5.0
"""How far the clocks of a leader and of this machine may be apart."""


def age_s(time: datetime | None, now: datetime) -> float | None:
    """Seconds since ``time``, at least 0; None where there is no time."""
    return None if time is None else max(0.0, (now - time).total_seconds())


def leader(picture: SiteView, now: datetime) -> str | None:
    """The leader's name; None without a lease, or where its term is over."""
    lease = picture.lease
    if lease is None or lease.released or now - lease.time > timedelta(seconds=lease.ttl_s + CLOCKS_APART_S):
        return None
    return lease.holder


def tick_term_s(record: v1.PlanRecord) -> float:
    """How long a tick counts as the newest: some intervals of load time, which in production is real time."""
    interval_s = record.observed.get("interval_s")
    return UNKNOWN_TICK_TERM_S if not interval_s else max(SHORTEST_TICK_TERM_S, TICKS_PER_TERM * interval_s)


def silent(picture: SiteView, now: datetime) -> list[str]:
    """Nodes that planners decide for and that have not reported within their term, sorted."""
    least = now - timedelta(seconds=NODE_TERM_S)
    return sorted([name for name, node in picture.nodes.items() if (seen := node.seen) is None or seen < least])


def problems(picture: SiteView, now: datetime, quiet: Sequence[str] | None = None) -> list[str]:
    """What is not well, one line each: no leader, old ticks, silent nodes, caps above a budget.

    ``quiet``: what `silent` says, where it was asked already.
    """
    found = []
    if leader(picture, now) is None:
        found.append("no planner leads" + (f": {picture.lease_flaw}" if picture.lease_flaw else ""))
    for name, view in sorted(picture.deployments.items()):
        record = view.record
        if record is None:
            found.append(f"{name}: no tick on this bus")
        elif (old_s := age_s(record.time, now) or 0.0) > tick_term_s(record):
            found.append(f"{name}: the newest tick is {words(old_s)} old")
    found += other_budgets(picture, now)
    found += sorted({reason.text for record in _current(picture, now) for reason in record.problems})
    for name in silent(picture, now) if quiet is None else quiet:
        since_s = age_s(picture.nodes[name].seen, now)
        found.append(f"{name}: silent" + ("" if since_s is None else f" for {words(since_s)}"))
    for site in picture.sites():
        known, caps_watts = picture.budget_of(site), picture.enforced_of(site)
        if known is not None and caps_watts > known[0] + SAME_WATTS:
            found.append(f"site {site}: caps of {caps_watts:,.0f} W are above its budget of {known[0]:,.0f} W")
    return found


def _current(picture: SiteView, now: datetime) -> list[v1.PlanRecord]:
    """The newest record of each deployment, where it is within its term."""
    records = [view.record for view in picture.deployments.values() if view.record is not None]
    return [record for record in records if (age_s(record.time, now) or 0.0) <= tick_term_s(record)]


def other_budgets(picture: SiteView, now: datetime) -> list[str]:
    """Sites whose budget is another one in the settings of a planner that stands by than in the leader's."""
    lease, found = picture.lease, []
    if lease is None or leader(picture, now) is None:
        return []
    for holder, sign in sorted(picture.standby.items()):
        if holder == lease.holder or now - sign.time > timedelta(seconds=sign.ttl_s + CLOCKS_APART_S):
            continue
        for site, watts in sorted(sign.budgets_watts.items()):
            if (led := lease.budgets_watts.get(site, watts)) != watts:
                found.append(
                    f"site {site}: {led:,.0f} W in the settings of the leader {lease.holder}, {watts:,.0f} W in those "
                    f"of {holder}, which stands by"
                )
    return found


def missed_targets(picture: SiteView) -> list[str]:
    """Targets that the newest ticks missed, one line each."""
    return [
        f"{name}: {what} of {amount(view.record.observed[what])} is above its target of {amount(target)}"
        for name, view in sorted(picture.deployments.items())
        if view.record is not None
        for what, target in view.record.targets.items()
        if what.endswith("_ms") and view.record.observed.get(what, 0.0) > target
    ]


def words(seconds: float) -> str:
    """A length of time for people: ``8 s``, ``3 min``, ``2 h``, ``5 d``."""
    for unit_s, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"
