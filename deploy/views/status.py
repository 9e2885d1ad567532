"""`wattscale status`: a site view as short text or as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bus_schemas import v1
from deploy.views.budgets import outside_words
from deploy.views.freshness import age_s, leader, missed_targets, problems, words
from deploy.views.live_view import figure, pool_cells, rate, watts_bar
from deploy.views.site_view import DeploymentSummary, SiteView
from deploy.views.words import clock, promised, sentence

UNFINISHED = frozenset({v1.AckStatus.PARTIAL, v1.AckStatus.FAILED, v1.AckStatus.REJECTED})
HINTS = frozenset({"expected_gpus", "pool_unmatched", "unannounced", "gpu_held", "hold_waits", "hold_refused"})
"""The codes of the notes that ask an operator for something."""


def as_text(picture: SiteView, now: datetime) -> str:
    """The view as text: what is not well first, and the age of everything."""
    lines = [f"! {problem}" for problem in problems(picture, now)]
    who = leader(picture, now)
    lines.append(f"leader: {who}" if who else "leader: none")
    for name, view in sorted(picture.deployments.items()):
        record = view.record
        observed_only = view.claim is not None and not view.claim.acknowledges
        reached = _reached(view.decision_id, "carried out", view.scaled_decision_id, acknowledged=not observed_only)
        lines.append(
            f"{name}: {rate(record)}, TTFT {figure(record, 'ttft_ms', 'ms')},"
            f" ITL {figure(record, 'itl_ms', 'ms')}; {reached}{_ago(record.time if record else None, now, 'tick')}"
        )
        for pool, running, wanted, granted, cap in pool_cells(view):
            lines.append(f"    {pool:<12} running {running:>3}  wanted {wanted:>3}  granted {granted:>3}  cap {cap}")
        if record is not None and record.slo is not None:
            lines.append(f"    {promised(record.slo)}")
        if why := trouble(view):
            lines.append(f"    not carried out: {why}")
    for name, node in sorted(picture.nodes.items()):
        applied = node.ack.applied_decision_id if node.ack else -1
        wanted_id = node.decision.decision_id if node.decision else -1
        lines.append(
            f"{name}: {node.drawn_watts:.0f} W drawn, {node.enforced_watts:.0f} W capped;"
            f" {_reached(wanted_id, 'applied', applied)}{_ago(node.seen, now, 'report')}"
        )
    lines.append(watts_bar(picture))
    lines += outside(picture)
    lines += hints(picture)
    lines += [f"{clock(message)} {sentence(message)}" for message in list(picture.history)[-5:]]
    return "\n".join(lines)


def _reached(decision_id: int, verb: str, done_id: int, *, acknowledged: bool = True) -> str:
    """The newest decision and how far it has come. The bus says -1 where there is none.

    ``acknowledged``: False where an autoscaler takes the counts, which tells nobody when it has set them.
    """
    if decision_id < 0:
        return "no decision yet"
    if not acknowledged:
        return f"decision #{decision_id}, given to an autoscaler"
    return f"decision #{decision_id}, {verb} " + (f"#{done_id}" if done_id >= 0 else "none yet")


def hints(picture: SiteView) -> list[str]:
    """What an operator should correct, once each, as the newest records and the connectors note it."""
    records = [view.record for view in picture.deployments.values() if view.record is not None]
    noted = {f"{r.site}: {note.text}" for r in records for note in r.notes if note.code in HINTS}
    claims = {name: view.claim for name, view in picture.deployments.items() if view.claim is not None}
    noted |= {f"{name}: {note}" for name, claim in claims.items() for note in claim.notes}
    return sorted(noted)


def outside(picture: SiteView) -> list[str]:
    """Sites with GPUs that the budget does not cover, one line each."""
    found = []
    for site in picture.sites():
        gpus, watts = picture.outside_of(site)
        if gpus:
            found.append(f"{site}: {outside_words(gpus, watts)}")
    return found


def _ago(time: datetime | None, now: datetime, what: str) -> str:
    since_s = age_s(time, now)
    return f"; no {what} yet" if since_s is None else f"; {what} {words(since_s)} ago"


def as_json(picture: SiteView, now: datetime) -> dict[str, Any]:
    """The view as JSON values; ages are in seconds at ``now``."""
    return {
        "time": now.isoformat(),
        "leader": leader(picture, now),
        "problems": problems(picture, now),
        "missed_targets": missed_targets(picture),
        "hints": hints(picture),
        "outside_budget": outside(picture),
        "budget_watts": None if picture.budget_watts is None else round(picture.budget_watts, 3),
        "enforced_watts": round(picture.enforced_watts, 3),
        "drawn_watts": round(picture.drawn_watts, 3),
        "deployments": {name: _deployment(view, now) for name, view in sorted(picture.deployments.items())},
        "nodes": {
            name: {
                "seen": node.seen.isoformat() if node.seen else None,
                "age_s": _rounded(age_s(node.seen, now)),
                "drawn_watts": round(node.drawn_watts, 3),
                "enforced_watts": round(node.enforced_watts, 3),
                "decision_id": node.decision.decision_id if node.decision else -1,
                "applied_decision_id": node.ack.applied_decision_id if node.ack else -1,
            }
            for name, node in sorted(picture.nodes.items())
        },
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def trouble(view: DeploymentSummary) -> str:
    """Why the newest decision is not carried out, in its connector's words, such as who else writes the count."""
    ack, decision = view.ack, view.decision
    if ack is None or ack.status not in UNFINISHED:
        return ""
    acked = (ack.incarnation, ack.decision_id)
    return ack.reason if decision is None or acked == (decision.incarnation, decision.decision_id) else ""


def _deployment(view: DeploymentSummary, now: datetime) -> dict[str, Any]:
    record = view.record
    return {
        "tick": record.time.isoformat() if record else None,
        "age_s": _rounded(age_s(record.time if record else None, now)),
        "decision_id": view.decision_id,
        "scaled_decision_id": view.scaled_decision_id,
        "not_carried_out": trouble(view),
        "observed": record.observed if record else {},
        "missing": record.missing if record else {},
        "targets": record.targets if record else {},
        "slo": record.slo.model_dump(mode="json") if record and record.slo else None,
        "pools": {name: pool.model_dump(mode="json") for name, pool in record.pools.items()} if record else {},
    }
