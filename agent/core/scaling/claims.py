"""Who may scale what: one connector for a deployment, and one deployment for a target. Pure.

Two connectors would each start and stop the other's workers, and both would acknowledge. Each refusal names both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """A running connector. ``instance`` differs between two processes; ``name`` is for people, with kind and host."""

    name: str
    instance: str


def refusal(deployment: str, own: Holder, held: Holder | None) -> str | None:
    """Why this connector may not scale a deployment, or None where it may. ``held``: who does so now, if anyone."""
    if held is None or held.instance == own.instance:
        return None
    return (
        f"deployment {deployment} is scaled by connector {held.name} ({held.instance}): "
        f"stop it, or leave the deployment out of {own.name} ({own.instance})"
    )


def shared_targets(targets: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """One sentence for each target that is claimed twice. ``targets``: by deployment and pool, the target's name."""
    claims: dict[str, list[str]] = {}
    for deployment, pools in targets.items():
        for pool, target in pools.items():
            claims.setdefault(target, []).append(f"pool {pool} of {deployment}")
    return tuple(
        f"target {target} is claimed by {' and by '.join(who)}: give it to one of them"
        for target, who in sorted(claims.items())
        if len(who) > 1
    )
