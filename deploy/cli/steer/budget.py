"""`wattscale budget`: sets a site's budget, releases budget commands, and shows what is in force."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from deploy.cli.bus_address import add_bus_options, address
from deploy.cli.bus_connection import reached
from deploy.cli.errors import CliError, UsageError
from deploy.cli.numbers import LONGEST_S, MOST_WATTS, number
from deploy.cli.steer.known_names import check_site
from deploy.cli.steer.sending import command_of, send, user_name

if TYPE_CHECKING:
    from bus_schemas.jetstream.connect import Bus

WAIT_S = 15.0
POLL_S = 0.1
LONGEST_WAIT_S = 86_400.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    budget = subparsers.add_parser("budget", help="show and change a site's power budget")
    actions = budget.add_subparsers(title="actions", metavar="ACTION", required=True)
    change = actions.add_parser("set", help="set the budget of a site, at once or over a ramp")
    _order_options(change)
    change.add_argument("watts", type=number(0, MOST_WATTS), metavar="WATTS")
    change.add_argument("--for-s", type=number(0, LONGEST_S), metavar="S", help="end after S seconds")
    change.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        help="wait until the caps are within the budget, exit 1 if not in time (default: on a terminal)",
    )
    change.add_argument(
        "--wait-s",
        type=number(0, LONGEST_WAIT_S, above=True),
        default=WAIT_S,
        metavar="S",
        help=f"longest wait after the ramp (default: {WAIT_S:g})",
    )
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
    parser.add_argument("--ramp-s", type=number(0, LONGEST_S), default=0.0, metavar="S", help="reach it in S seconds")
    parser.add_argument("--force", action="store_true", help="also for a site that the bus does not know yet")
    parser.add_argument("--reason", default="", help="one sentence for the record")
    parser.add_argument("--json", action="store_true", help="print the message that was published")


def _site(args: argparse.Namespace) -> str:
    """The site that is meant. A default exists only on the bus of this user's last `up`."""
    if args.site:
        return str(args.site)
    site = address(args).site
    if site is None:
        raise UsageError(
            "--site is needed: the bus is not that of the last `wattscale up`; `wattscale budget show` lists"
        )
    return site


async def _set(args: argparse.Namespace) -> int:
    site = _site(args)
    wait = sys.stdout.isatty() and not args.json if args.wait is None else args.wait
    async with reached(args) as bus:
        before_watts = await _check(bus, args, site)
        began_s = time.monotonic()
        await _send(bus, args, args.watts, for_s=args.for_s)
        await _warn(bus, args, site)
        return await _wait(bus, args, site, before_watts, began_s) if wait else 0


async def _release(args: argparse.Namespace) -> int:
    """Publish a release. It repeats the last command's watts: a reader that does not know releases sees no change."""
    from bus_schemas import v1
    from bus_schemas.jetstream.reader import last

    site = _site(args)
    async with reached(args) as bus:
        await _check(bus, args, site)
        found = await last(bus, bus.subjects.control_budget(site))
        if found is None or not isinstance(found.message, v1.BudgetChange):
            raise CliError(f"site {site} has no budget command to release; `wattscale budget show` lists them")
        return await _send(bus, args, found.message.budget_watts, release=True)


async def _check(bus: Bus, args: argparse.Namespace, site: str) -> float | None:
    """The site's budget so far, in watts, None where unknown. Raises UsageError for an unknown site."""
    from deploy.views.bus_reader import names

    if args.force:
        return None
    view = await names(bus)
    check_site(view, site)
    known = view.budget_of(site)
    return known[0] if known else None


async def _warn(bus: Bus, args: argparse.Namespace, site: str) -> None:
    """Print a note where no caps can come to so few watts: the command is stored all the same."""
    from deploy.views.bus_reader import names

    nodes = [node for node in (await names(bus)).nodes.values() if node.site == site]
    least = sum(node.least_watts for node in nodes)
    if least > args.watts:
        print(
            f"note: the smallest caps of site {site} come to {least:g} W; switch nodes off, or raise it",
            file=sys.stderr,
        )


async def _wait(bus: Bus, args: argparse.Namespace, site: str, before_watts: float | None, began_s: float) -> int:
    """Wait until the budget is in force, and print that it is, or why it is not. Returns the exit code."""
    from deploy.views.bus_reader import newest
    from deploy.views.in_force import caps_in_force

    deadline_s = began_s + args.ramp_s + args.wait_s
    while True:
        found = caps_in_force(await newest(bus), site, args.watts, before_watts, datetime.now(UTC))
        taken_s = time.monotonic() - began_s
        if found.holds and taken_s >= args.ramp_s:
            print(f"{found.sentence()} after {taken_s:.1f} s")
            return 0
        if time.monotonic() >= deadline_s:
            raise CliError(f"not in force after {taken_s:.1f} s: {found.sentence()}")
        await asyncio.sleep(POLL_S)


async def _send(
    bus: Bus, args: argparse.Namespace, watts: float, *, for_s: float | None = None, release: bool = False
) -> int:
    from bus_schemas import v1
    from bus_schemas.visible_text import visible_json

    now = datetime.now(UTC)
    change = command_of(
        v1.BudgetChange,
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
        print(visible_json(change.model_dump_json()))
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
