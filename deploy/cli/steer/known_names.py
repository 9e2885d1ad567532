"""Refuses commands for names that are unknown on the bus: a typing mistake must not look like a cut.

Names are known from decisions, acknowledgements and telemetry. Commands do not make a name known.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from deploy.cli.errors import UsageError
from deploy.cli.nearest import hint

if TYPE_CHECKING:
    from deploy.views.site_view import SiteView

FORCE = "--force for a name to come"


def check_site(view: SiteView, site: str) -> None:
    """Raises UsageError for a site that no planner has decided for."""
    if site not in view.sites():
        raise UsageError(f"no site {site!r} on this bus: {hint(site, view.sites())} ({FORCE})")


def check_deployment(view: SiteView, deployment: str, pinned: Mapping[str, int]) -> None:
    """Raises UsageError for an unknown deployment, and for a pool that it does not have."""
    found = view.deployments.get(deployment)
    if found is None:
        raise UsageError(f"no deployment {deployment!r} on this bus: {hint(deployment, view.deployments)} ({FORCE})")
    pools = {*(found.record.pools if found.record else ()), *(found.decision.pools if found.decision else ())}
    for pool, count in pinned.items():
        if pools and pool not in pools:
            raise UsageError(f"{deployment} has no pool {pool!r}: {hint(pool, pools)} ({FORCE})")
        known = found.record.pools.get(pool) if found.record else None
        if known is None or known.min_replicas is None or known.max_replicas is None:
            continue
        if not known.min_replicas <= count <= known.max_replicas:
            bounds = f"{known.min_replicas} to {known.max_replicas}"
            raise UsageError(f"{pool}={count} is outside the pool's bounds of {bounds} replicas (--force to clamp it)")


def check_node(view: SiteView, node: str, action: str, now: datetime) -> None:
    """Raises UsageError for an unknown node, and where a node that reports is declared gone."""
    from deploy.views.freshness import NODE_TERM_S, age_s, words

    found = view.nodes.get(node)
    if found is None:
        raise UsageError(f"no node {node!r} on this bus: {hint(node, view.nodes)} ({FORCE})")
    since_s = age_s(found.seen, now)
    if action == "remove" and since_s is not None and since_s <= NODE_TERM_S:
        raise UsageError(
            f"node {node} is alive: its agent reported {words(since_s)} ago; switch it off first (--force: planners "
            "ignore the command for as long as it reports)"
        )
