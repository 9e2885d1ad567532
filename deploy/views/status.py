"""`wattscale status`: a site view as short text or as JSON."""

from __future__ import annotations

from typing import Any

from deploy.views.live_view import figure, pool_cells, rate, watts_bar
from deploy.views.site_view import DeploymentSummary, SiteView
from deploy.views.words import clock, sentence

HINTS = frozenset({"expected_gpus", "pool_unmatched"})
"""The codes of the notes that ask for a setting."""


def as_text(picture: SiteView) -> str:
    """The view as text."""
    lines: list[str] = []
    for name, view in sorted(picture.deployments.items()):
        record = view.record
        lines.append(
            f"{name}: {rate(record)}, TTFT {figure(record, 'ttft_ms', 'ms')},"
            f" ITL {figure(record, 'itl_ms', 'ms')}; decision #{view.decision_id},"
            f" carried out #{view.scaled_decision_id}"
        )
        for pool, running, wanted, granted, cap in pool_cells(view):
            lines.append(f"    {pool:<12} running {running:>3}  wanted {wanted:>3}  granted {granted:>3}  cap {cap}")
    for name, node in sorted(picture.nodes.items()):
        applied = node.ack.applied_decision_id if node.ack else -1
        wanted_id = node.decision.decision_id if node.decision else -1
        lines.append(
            f"{name}: {node.drawn_watts:.0f} W drawn, {node.enforced_watts:.0f} W capped;"
            f" decision #{wanted_id}, applied #{applied}"
        )
    lines.append(watts_bar(picture))
    lines += hints(picture)
    lines += [f"{clock(message)} {sentence(message)}" for message in list(picture.history)[-5:]]
    return "\n".join(lines)


def hints(picture: SiteView) -> list[str]:
    """What the sites' settings should say, once each, as the newest records note it."""
    records = [view.record for view in picture.deployments.values() if view.record is not None]
    noted = {f"{r.site}: {note.text}" for r in records for note in r.notes if note.code in HINTS}
    return sorted(noted)


def as_json(picture: SiteView) -> dict[str, Any]:
    """The view as JSON values."""
    return {
        "hints": hints(picture),
        "budget_watts": picture.budget_watts,
        "enforced_watts": round(picture.enforced_watts, 3),
        "drawn_watts": round(picture.drawn_watts, 3),
        "deployments": {name: _deployment(view) for name, view in sorted(picture.deployments.items())},
        "nodes": {
            name: {
                "drawn_watts": round(node.drawn_watts, 3),
                "enforced_watts": round(node.enforced_watts, 3),
                "decision_id": node.decision.decision_id if node.decision else -1,
                "applied_decision_id": node.ack.applied_decision_id if node.ack else -1,
            }
            for name, node in sorted(picture.nodes.items())
        },
    }


def _deployment(view: DeploymentSummary) -> dict[str, Any]:
    record = view.record
    return {
        "decision_id": view.decision_id,
        "scaled_decision_id": view.scaled_decision_id,
        "observed": record.observed if record else {},
        "missing": record.missing if record else {},
        "targets": record.targets if record else {},
        "pools": {name: pool.model_dump(mode="json") for name, pool in record.pools.items()} if record else {},
    }
