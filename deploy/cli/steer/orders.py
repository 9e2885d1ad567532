"""The orders of an operator, from the command line or the page: made, checked against the bus, and stored.

An order that is stored is its own record: it holds who gave it, when, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from deploy.cli.errors import CliError
from deploy.cli.steer.known_names import check_deployment, check_node, check_site
from deploy.cli.steer.sending import command_of, send

if TYPE_CHECKING:
    from bus_schemas import v1
    from bus_schemas.jetstream.connect import Bus
    from deploy.views.site_view import SiteView

    Order = v1.BudgetChange | v1.DeploymentControl | v1.NodeControl


def deployment_order(
    deployment: str, action: str, now: datetime, *, replicas: Mapping[str, int], reason: str, issued_by: str
) -> v1.DeploymentControl:
    """Pause, resume, pin or release a deployment. Raises UsageError for what no command can carry."""
    from bus_schemas import v1

    return command_of(
        v1.DeploymentControl,
        time=now,
        deployment=deployment,
        action=action,
        replicas=replicas,
        reason=reason,
        issued_by=issued_by,
    )


def budget_order(
    site: str,
    watts: float,
    now: datetime,
    *,
    ramp_s: float,
    for_s: float | None = None,
    release: bool = False,
    reason: str,
    issued_by: str,
) -> v1.BudgetChange:
    """A site's new budget, or the release of all of them. Raises UsageError for what no command can carry."""
    from bus_schemas import v1

    return command_of(
        v1.BudgetChange,
        time=now,
        site=site,
        budget_watts=watts,
        effective_from=now,
        effective_until=now + timedelta(seconds=for_s) if for_s is not None else None,
        release=release,
        ramp_s=ramp_s,
        reason=reason,
        issued_by=issued_by,
    )


async def watts_to_repeat(bus: Bus, site: str) -> float:
    """The watts of the site's last budget command, which its release repeats: a reader that does not know releases
    then sees no change. Raises CliError where there is none, and BusError.
    """
    from bus_schemas import v1
    from bus_schemas.jetstream.reader import last

    found = await last(bus, bus.subjects.control_budget(site))
    if found is None or not isinstance(found.message, v1.BudgetChange):
        raise CliError(f"site {site} has no budget command to release; `wattscale budget show` lists them")
    return found.message.budget_watts


def check(view: SiteView, order: Order) -> None:
    """Raises UsageError for an order about what the bus does not know, or that its pools cannot follow."""
    from bus_schemas import v1

    match order:
        case v1.DeploymentControl():
            check_deployment(view, order.deployment, order.replicas)
        case v1.NodeControl():
            check_node(view, order.node, order.action, order.time)
        case v1.BudgetChange():
            check_site(view, order.site)


async def store(bus: Bus, order: Order) -> None:
    """Store the order on its subject. Raises BusError and CliError; see `send`."""
    from bus_schemas import v1

    subjects = bus.subjects
    match order:
        case v1.DeploymentControl():
            subject = subjects.control_deployment(order.deployment)
        case v1.NodeControl():
            subject = subjects.control_node(order.node)
        case v1.BudgetChange():
            subject = subjects.control_budget(order.site)
    await send(bus, subject, order)


def sentence(order: Order) -> str:
    """What the order asks for, in one line."""
    from bus_schemas import v1

    match order:
        case v1.DeploymentControl():
            counts = "".join(f" {pool}={count}" for pool, count in order.replicas.items())
            return f"deployment {order.deployment}: {order.action}{counts}"
        case v1.NodeControl():
            return f"node {order.node}: {order.action}"
        case v1.BudgetChange():
            what = "as configured and scheduled" if order.release else f"{order.budget_watts:g} W"
            ramp = f" over a ramp of {order.ramp_s:g} s" if order.ramp_s else " at once"
            return f"budget of site {order.site}: {what}{ramp}"


def too_few_watts(view: SiteView, order: v1.BudgetChange) -> str:
    """A note where no caps can come to so few watts: the order is stored all the same. Empty where they can."""
    least = sum(node.least_watts for node in view.nodes.values() if node.site == order.site)
    if order.release or least <= order.budget_watts:
        return ""
    return f"the smallest caps of site {order.site} come to {least:g} W; switch nodes off, or raise it"
