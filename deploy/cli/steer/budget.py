"""`wattscale budget`: sets a site's budget, releases budget commands, and shows what is in force."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deploy.cli.bus_address import add_bus_options, address
from deploy.cli.bus_connection import reached
from deploy.cli.errors import CliError, UsageError
from deploy.cli.numbers import LONGEST_S, MOST_WATTS, number
from deploy.cli.steer.orders import budget_order, check, sentence, store, too_few_watts, watts_to_repeat
from deploy.cli.steer.sending import user_name

if TYPE_CHECKING:
    from bus_schemas import v1
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
        order = _order(args, site, args.watts, for_s=args.for_s)
        before_watts = await _check(bus, args, order)
        began_s = time.monotonic()
        await _send(bus, args, order)
        await _warn(bus, order)
        return await _wait(bus, args, site, before_watts, began_s) if wait else 0


async def _release(args: argparse.Namespace) -> int:
    site = _site(args)
    async with reached(args) as bus:
        await _check(bus, args, _order(args, site, 0.0, release=True))
        return await _send(bus, args, _order(args, site, await watts_to_repeat(bus, site), release=True))


def _order(
    args: argparse.Namespace, site: str, watts: float, *, for_s: float | None = None, release: bool = False
) -> v1.BudgetChange:
    now, who = datetime.now(UTC), user_name()
    return budget_order(
        site, watts, now, ramp_s=args.ramp_s, for_s=for_s, release=release, reason=args.reason, issued_by=who
    )


async def _check(bus: Bus, args: argparse.Namespace, order: v1.BudgetChange) -> float | None:
    """The site's budget so far, in watts, None where unknown. Raises UsageError for an unknown site."""
    from deploy.views.bus_reader import names

    if args.force:
        return None
    view = await names(bus)
    check(view, order)
    known = view.budget_of(order.site)
    return known[0] if known else None


async def _warn(bus: Bus, order: v1.BudgetChange) -> None:
    from deploy.views.bus_reader import names

    if note := too_few_watts(await names(bus), order):
        print(f"note: {note}", file=sys.stderr)


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


async def _send(bus: Bus, args: argparse.Namespace, order: v1.BudgetChange) -> int:
    from bus_schemas.visible_text import visible_json

    await store(bus, order)
    print(visible_json(order.model_dump_json()) if args.json else sentence(order))
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
