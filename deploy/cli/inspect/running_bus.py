"""`wattscale status | decisions | explain`: the state of a running site, read from the bus's streams only."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deploy.cli.bus_address import add_bus_options
from deploy.cli.bus_connection import reached
from deploy.cli.errors import CliError
from deploy.cli.numbers import whole
from deploy.views.kept_records import RECORDS_LAST

if TYPE_CHECKING:
    from bus_schemas import v1

RECENT_DECISIONS = 50
MOST_DECISIONS = 100_000
STATUS = (
    "Shows load, replicas, latency and watts, with the age of everything. Exit code 0: well; 1: no leader, a tick older"
    " than its term, a silent node, or caps above a budget (--strict: also a missed target); 2: bad input; 3: the bus "
    "cannot be reached or read."
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    status = subparsers.add_parser(
        "status", help="load, replicas, latency and watts of a running site", description=STATUS
    )
    add_bus_options(status)
    status.add_argument("--json", action="store_true", help="print JSON")
    status.add_argument("--strict", action="store_true", help="exit 1 also when a target is missed")
    status.set_defaults(run=lambda args: asyncio.run(_status(args)))

    decisions = subparsers.add_parser("decisions", help="decisions and acknowledgements, newest last")
    add_bus_options(decisions)
    decisions.add_argument("--follow", "-f", action="store_true", help="continue with new ones until interrupted")
    decisions.add_argument(
        "--last",
        type=whole(1, MOST_DECISIONS),
        default=RECENT_DECISIONS,
        metavar="N",
        help="how many of the newest to begin with",
    )
    decisions.add_argument("--json", action="store_true", help="print one JSON message per line")
    decisions.set_defaults(run=lambda args: asyncio.run(_decisions(args)))

    explain = subparsers.add_parser("explain", help="why a deployment's decision is what it is")
    add_bus_options(explain)
    explain.add_argument("deployment", metavar="DEPLOYMENT")
    explain.add_argument("decision_id", nargs="?", type=whole(0, 2**53), metavar="ID", help="default: the newest")
    explain.add_argument("--json", action="store_true", help="print the records as JSON")
    explain.set_defaults(run=lambda args: asyncio.run(_explain(args)))


async def _status(args: argparse.Namespace) -> int:
    from deploy.views.bus_reader import newest
    from deploy.views.freshness import missed_targets, problems
    from deploy.views.status import as_json, as_text

    async with reached(args) as bus:
        picture = await newest(bus)
    now = datetime.now(UTC)
    print(json.dumps(as_json(picture, now), indent=2) if args.json else as_text(picture, now))
    if not (picture.deployments or picture.nodes):
        raise CliError("this bus holds no decision, acknowledgement or telemetry yet; is a planner running?")
    return 1 if problems(picture, now) or (args.strict and missed_targets(picture)) else 0


async def _decisions(args: argparse.Namespace) -> int:
    from deploy.views.bus_reader import following, recent

    async with reached(args) as bus:
        if args.follow:
            async for message in following(bus, args.last):
                _print_message(message, as_json=args.json)
        else:
            for message in await recent(bus, args.last):
                _print_message(message, as_json=args.json)
    return 0


def _print_message(message: v1.Message, *, as_json: bool) -> None:
    from bus_schemas.visible_text import visible_json
    from deploy.views.words import clock, sentence

    line = visible_json(message.model_dump_json()) if as_json else f"{clock(message)} {sentence(message)}"
    print(line)
    sys.stdout.flush()


async def _explain(args: argparse.Namespace) -> int:
    from deploy.views.bus_reader import story
    from deploy.views.explain import explain
    from deploy.views.freshness import age_s, tick_term_s, words

    async with reached(args) as bus:
        record, decision, ack = await story(bus, args.deployment, args.decision_id)
    if record is None:
        raise CliError(_no_record(args))
    now = datetime.now(UTC)
    if args.json:
        parts = {"record": record, "decision": decision, "ack": ack}
        print(json.dumps({name: part.model_dump(mode="json") if part else None for name, part in parts.items()}))
    else:
        print(explain(record, decision, ack, now))
    old_s = age_s(record.time, now) or 0.0
    if args.decision_id is None and old_s > tick_term_s(record):
        raise CliError(f"this tick is {words(old_s)} old: no planner decides for {args.deployment} now")
    return 0


def _no_record(args: argparse.Namespace) -> str:
    what = f"decision #{args.decision_id} of {args.deployment}" if args.decision_id is not None else args.deployment
    return (
        f"no plan record of {what} on this bus; records are kept for {RECORDS_LAST}, "
        "and `wattscale status` lists the deployments"
    )
