"""Whether a site's caps are within a budget now, and which nodes keep them from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from deploy.views.budgets import SAME_WATTS
from deploy.views.freshness import leader, silent
from deploy.views.site_view import SiteView

LISTED = 5


@dataclass(frozen=True, slots=True)
class CapsInForce:
    """A site's caps beside a budget. ``late``: nodes that have not applied their newest decision."""

    caps_watts: float
    budget_watts: float
    taken: bool
    """Whether a planner decides by this budget already, or needs not to because it was no higher before."""
    leader: str | None
    late: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the budget is in force: a planner has it, and the caps in force or being changed are not above it."""
        return self.taken and self.leader is not None and self.caps_watts <= self.budget_watts + SAME_WATTS

    def sentence(self) -> str:
        """In one line, without the time that it took."""
        caps = f"{self.caps_watts:,.0f} W of {self.budget_watts:,.0f} W"
        if self.holds:
            return f"caps now {caps}"
        why = []
        if self.leader is None:
            why.append("no planner leads; the command is stored and waits for one")
        elif not self.taken:
            why.append("no plan has the command yet")
        if (missing := self.caps_watts - self.budget_watts) > SAME_WATTS:
            why.append(f"{missing:,.0f} W too much")
        for what, names in (("silent", self.silent), ("not yet applied", self.late)):
            if names:
                more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
                why.append(f"{what}: {', '.join(names[:LISTED])}{more}")
        return f"caps {caps}: {'; '.join(why)}"


def caps_in_force(
    picture: SiteView, site: str, budget_watts: float, before_watts: float | None, now: datetime
) -> CapsInForce:
    """The site's caps at ``now`` beside a budget that replaced ``before_watts`` (None: unknown)."""
    nodes = picture.nodes_of(site)
    known = picture.budget_of(site)
    taken = known is not None and abs(known[0] - budget_watts) < SAME_WATTS
    raised = before_watts is not None and budget_watts >= before_watts
    late = [
        name
        for name, node in nodes.items()
        if node.decision and (node.ack is None or node.ack.applied_decision_id < node.decision.decision_id)
    ]
    return CapsInForce(
        caps_watts=sum(node.charged_watts for node in nodes.values()),
        budget_watts=budget_watts,
        taken=taken or raised,
        leader=leader(picture, now),
        late=tuple(sorted(late)),
        silent=tuple(name for name in silent(picture, now) if name in nodes),
    )
