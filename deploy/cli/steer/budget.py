"""`wattscale budget`: sets a site's budget, releases budget commands, and shows what is in force."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from deploy.cli.bus_address import add_bus_options
from deploy.cli.bus_connection import reached
from deploy.cli.errors import CliError, UsageError
from deploy.cli.steer.sending import send, user_name

if TYPE_CHECKING:
    from bus_schemas.jetstream.connect import Bus

DEFAULT_SITE = "local"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    budget = subparsers.add_parser("budget", help="show and change a site's power budget")
    actions = budget.add_subparsers(title="actions", metavar="ACTION", required=True)
    change = actions.add_parser("set", help="set the budget of a site, at once or over a ramp")
    _order_options(change)
    change.add_argument("watts", type=float, metavar="WATTS")
    change.add_argument("--for-s", type=float, metavar="S", help="end after S seconds")
    change.set_defaults(run=lambda args: asyncio.run(_set(args)))
    release = actions.add_parser(
        "release", help="end all budget commands: back to the configured budget and its schedule"
    )
    _order_options(release)
    release.set_defaults(run=lambda args: asyncio.run(_release(args)))
    show = actions.add_parser("show", help="every site's budget and the commands behind it")
    add_bus_options(show)
    show.add_argument("--all", action="store_true", help="also commands that have ended")
    show.add_argument("--json", action="store_true", help="print JSON, with all commands")
    show.set_defaults(run=lambda args: asyncio.run(_show(args)))


def _order_options(parser: argparse.ArgumentParser) -> None:
    add_bus_options(parser)
    parser.add_argument("--site", help="site whose budget changes (default: that of this user's last `up`)")
    parser.add_argument("--ramp-s", type=float, default=0.0, metavar="S", help="reach it in S seconds")
    parser.add_argument("--reason", default="", help="one sentence for the record")
    parser.add_argument("--json", action="store_true", help="print the message that was published")


def _site(args: argparse.Namespace) -> str:
    from deploy.demo.last_run import last_known

    if args.site:
        return str(args.site)
    last = last_known()
    return last.site if last else DEFAULT_SITE


async def _set(args: argparse.Namespace) -> int:
    if not 0 <= args.watts <= 1e9:
        raise UsageError(f"a budget is a number of watts from 0 to 1e9, not {args.watts:g}")
    if args.for_s is not None and args.for_s < 0:
        raise UsageError(f"--for-s must not be negative, not {args.for_s:g}")
    async with reached(args) as bus:
        return await _send(bus, args, args.watts, for_s=args.for_s)


async def _release(args: argparse.Namespace) -> int:
    """Publish a release. It repeats the last command's watts: a reader that does not know releases sees no change."""
    from bus_schemas import v1
    from bus_schemas.jetstream.reader import last

    async with reached(args) as bus:
        found = await last(bus, bus.subjects.control_budget(_site(args)))
        if found is None or not isinstance(found.message, v1.BudgetChange):
            raise CliError(f"site {_site(args)} has no budget command to release; `wattscale budget show` lists them")
        return await _send(bus, args, found.message.budget_watts, release=True)


async def _send(
    bus: Bus, args: argparse.Namespace, watts: float, *, for_s: float | None = None, release: bool = False
) -> int:
    from bus_schemas import v1

    if args.ramp_s < 0:
        raise UsageError(f"--ramp-s must not be negative, not {args.ramp_s:g}")
    now = datetime.now(UTC)
    change = v1.BudgetChange(
        time=now,
        site=_site(args),
        budget_watts=watts,
        effective_from=now,
        effective_until=now + timedelta(seconds=for_s) if for_s is not None else None,
        release=release,
        ramp_s=args.ramp_s,
        reason=args.reason,
        issued_by=user_name(),
    )
    await send(bus, bus.subjects.control_budget(change.site), change)
    if args.json:
        print(change.model_dump_json())
    else:
        what = "as configured and scheduled" if release else f"{watts:g} W"
        ramp = f" over a ramp of {change.ramp_s:g} s" if change.ramp_s else " at once"
        print(f"budget of site {change.site}: {what}{ramp}")
    return 0


async def _show(args: argparse.Namespace) -> int:
    from deploy.views.budgets import as_json, as_text, budgets
    from deploy.views.bus_reader import budget_commands, newest

    async with reached(args) as bus:
        sites = budgets(await newest(bus), await budget_commands(bus), datetime.now(UTC))
    if args.json:
        print(json.dumps(as_json(sites), indent=2))
    elif sites:
        print(as_text(sites, everything=args.all))
    if not sites:
        raise CliError("this bus has no site yet: no plan and no budget command; is a planner running?")
    return 0
