"""`wattscale budget show`: what each site may draw now, and the orders that say so.

Reads orders as the planner does (the newest that has begun and not lapsed decides), and says so in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from bus_schemas import v1
from deploy.views.site_view import SiteView


class OrderState(StrEnum):
    """Where an order stands."""

    WAITING = "begins later"
    RAMPING = "on its ramp"
    IN_FORCE = "in force"
    HIDDEN = "behind a newer one"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class SiteBudget:
    """``budget_watts``: by the newest plan; None where no plan of the site is on the bus. ``orders``: oldest first."""

    site: str
    budget_watts: float | None
    orders: tuple[tuple[v1.BudgetChange, OrderState], ...]


def states(orders: Sequence[v1.BudgetChange], now: datetime) -> list[OrderState]:
    """The state of each of a site's orders, given oldest first."""
    found: list[OrderState] = []
    decided = settled = False
    for order in reversed(orders):
        begins, until = order.effective_from or order.time, order.effective_until
        if settled or (until is not None and until <= now):
            # Behind one that has begun and has no end, none can ever show again.
            state = OrderState.OVER
        elif begins > now:
            state = OrderState.WAITING
        else:
            ramping = now < begins + timedelta(seconds=order.ramp_s)
            state = OrderState.HIDDEN if decided else OrderState.RAMPING if ramping else OrderState.IN_FORCE
            decided, settled = True, until is None
        found.append(state)
    return found[::-1]


def budgets(picture: SiteView, orders: Sequence[v1.BudgetChange], now: datetime) -> list[SiteBudget]:
    """Every site that a plan or an order names."""
    planned = {
        view.record.site: view.record.budget_watts for view in picture.deployments.values() if view.record is not None
    }
    found = []
    for site in sorted({*planned, *(order.site for order in orders)} - {""}):
        own = [order for order in orders if order.site == site]
        found.append(SiteBudget(site, planned.get(site), tuple(zip(own, states(own, now), strict=True))))
    return found


def as_text(sites: Sequence[SiteBudget], *, everything: bool) -> str:
    """For people; orders that are over only with ``everything``."""
    lines: list[str] = []
    for site in sites:
        known = "no plan on this bus yet" if site.budget_watts is None else f"{site.budget_watts:.0f} W now"
        shown = [(o, s) for o, s in site.orders if everything or s is not OrderState.OVER]
        decided = any(s in (OrderState.IN_FORCE, OrderState.RAMPING) and not o.release for o, s in shown)
        by = "" if decided or site.budget_watts is None else ", by configuration and schedule"
        lines.append(f"site {site.site}: {known}{by}")
        lines += [f"    {_words(order)}: {state}" for order, state in shown]
    return "\n".join(lines)


def as_json(sites: Sequence[SiteBudget]) -> list[dict[str, Any]]:
    """For machines."""
    return [
        {
            "site": site.site,
            "budget_watts": site.budget_watts,
            "orders": [{**o.model_dump(mode="json"), "state": s.name.lower()} for o, s in site.orders],
        }
        for site in sites
    ]


def _words(order: v1.BudgetChange) -> str:
    begins = order.effective_from or order.time
    what = "back to configuration and schedule" if order.release else f"{order.budget_watts:g} W"
    until = f" until {order.effective_until:%Y-%m-%d %H:%M:%S}" if order.effective_until else ""
    ramp = f", by a ramp of {order.ramp_s:g} s" if order.ramp_s else ""
    who = f", by {order.issued_by}" if order.issued_by else ""
    why = f" ({order.reason})" if order.reason else ""
    return f"{what} from {begins:%Y-%m-%d %H:%M:%S}{until} UTC{ramp}{who}{why}"
