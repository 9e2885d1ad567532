"""`wattscale streams plan | apply | check`: compares the streams on a server with what this version needs."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import TYPE_CHECKING

from deploy.cli.bus_address import add_bus_options
from deploy.cli.bus_connection import reached
from deploy.cli.numbers import whole

if TYPE_CHECKING:
    from bus_schemas.jetstream.connect import Bus
    from bus_schemas.jetstream.stream_admin import StreamChange

MOST_REPLICAS = 5


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    streams = subparsers.add_parser("streams", help="create the bus's streams, or show what differs")
    actions = streams.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, words in (
        ("plan", "show what apply would do"),
        ("apply", "create missing streams and grow small ones; never shrinks or deletes"),
        ("check", "exit 1 when the server differs from what this version needs"),
    ):
        action = actions.add_parser(name, help=words, description=words)
        add_bus_options(action)
        action.add_argument(
            "--replicas",
            type=whole(1, MOST_REPLICAS),
            default=1,
            metavar="N",
            help="copies of each stream: 3 in a cluster",
        )
        action.add_argument("--json", action="store_true", help="print JSON")
        action.set_defaults(run=lambda args, name=name: asyncio.run(_run(args, name)))


async def _run(args: argparse.Namespace, action: str) -> int:
    from bus_schemas.jetstream import stream_admin
    from bus_schemas.streams import DECISIONS
    from bus_schemas.visible_text import visible

    work = {"plan": stream_admin.plan, "apply": stream_admin.apply, "check": stream_admin.plan}[action]
    async with reached(args) as bus:
        changes = await work(bus, args.replicas)
        doubts = await _doubts(bus, changes) if action == "check" else []
    if args.json:
        rows = [{"stream": c.stream, "what": c.what, "refused": c.refused} for c in changes]
        rows += [{"stream": DECISIONS, "what": doubt, "refused": ""} for doubt in doubts]
        print(json.dumps(rows, indent=2))
    else:
        for change in changes:
            print(change)
        for doubt in doubts:
            print(f"! {DECISIONS}: {visible(doubt)}")
        print(_summary(action, len(changes), sum(bool(change.refused) for change in changes)))
    return 1 if action == "check" and (changes or doubts) else 0


async def _doubts(bus: Bus, changes: list[StreamChange]) -> list[str]:
    """What a planner that leads over these decisions could not rely on."""
    from bus_schemas.jetstream.decision_history import forgetful, put_back

    found = [forgets] if (forgets := await forgetful(bus)) else []
    if any(change.what == "create" for change in changes):
        return found
    back = await put_back(bus)
    return found + [f"put back from an older copy: {sentence}" for sentence in back]


def _summary(action: str, changes: int, refused: int) -> str:
    if not changes:
        return "streams: up to date"
    verb = "made" if action == "apply" else "to make"
    tail = f", {refused} refused: an operator must decide" if refused else ""
    return f"streams: {changes - refused} changes {verb}{tail}"
