"""`wattscale budget set`: tells the planners of a site its new budget, as an operator or a script would."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import uuid
from datetime import UTC, datetime, timedelta

from deploy.cli.errors import UsageError
from deploy.cli.reach import add_bus_options, reached

DEFAULT_SITE = "local"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    budget = subparsers.add_parser("budget", help="change a site's power budget")
    actions = budget.add_subparsers(title="actions", metavar="ACTION", required=True)
    change = actions.add_parser("set", help="set the budget of a site, at once or by a ramp")
    add_bus_options(change)
    change.add_argument("watts", type=float, metavar="WATTS")
    change.add_argument("--site", help="site whose budget changes (default: that of this user's last `up`)")
    change.add_argument("--ramp-s", type=float, default=0.0, metavar="S", help="reach it in S seconds")
    change.add_argument("--for-s", type=float, metavar="S", help="lapse after S seconds")
    change.add_argument("--reason", default="", help="one sentence for the record")
    change.add_argument("--json", action="store_true", help="print the message that was published")
    change.set_defaults(run=lambda args: asyncio.run(_set(args)))


def _site(args: argparse.Namespace) -> str:
    from deploy.local.last import recall

    if args.site:
        return str(args.site)
    last = recall()
    return last.site if last else DEFAULT_SITE


async def _set(args: argparse.Namespace) -> int:
    from bus_schemas import v1
    from bus_schemas.errors import BusError
    from bus_schemas.jetstream.publish import publish
    from bus_schemas.subjects import BadName

    if not 0 <= args.watts <= 1e9:
        raise UsageError(f"a budget is a number of watts from 0 to 1e9, not {args.watts:g}")
    for option, value in (("--ramp-s", args.ramp_s), ("--for-s", args.for_s)):
        if value is not None and value < 0:
            raise UsageError(f"{option} must not be negative, not {value:g}")
    now = datetime.now(UTC)
    change = v1.BudgetChange(
        time=now,
        site=_site(args),
        budget_watts=args.watts,
        effective_from=now,
        effective_until=now + timedelta(seconds=args.for_s) if args.for_s is not None else None,
        ramp_s=args.ramp_s,
        reason=args.reason,
        issued_by=user_name(),
    )
    async with reached(args) as bus:
        try:
            await publish(bus, bus.subjects.control_budget(change.site), change, msg_id=str(uuid.uuid4()))
        except (BadName, BusError) as error:
            raise UsageError(str(error)) from error
    if args.json:
        print(change.model_dump_json())
    else:
        ramp = f" by a ramp of {change.ramp_s:g} s" if change.ramp_s else " at once"
        print(f"budget of site {change.site}: {change.budget_watts:g} W{ramp}")
    return 0


def user_name() -> str:
    """Who gives an order, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a user id that no one named.
        return ""
