"""`wattscale deployment` and `wattscale node`: an operator's commands on a deployment or a lost node."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deploy.cli.bus_address import add_bus_options
from deploy.cli.bus_connection import reached
from deploy.cli.errors import UsageError
from deploy.cli.steer.orders import check, deployment_order, sentence, store
from deploy.cli.steer.restart import add_restart
from deploy.cli.steer.sending import command_of, user_name

if TYPE_CHECKING:
    from bus_schemas import v1

MOST_DIGITS = 6
DEPLOYMENT_ACTIONS = {
    "pause": "publish no scaling decisions for a deployment until it is resumed",
    "resume": "let the planner decide again",
    "pin": "hold a deployment at the given replicas",
    "release": "release pinned replicas",
    "restart": "restart the workers of a deployment's graph (by its Kubernetes connector)",
}
NODE_ACTIONS = {
    "remove": "declare a node powered off or gone: its watts go to others",
    "restore": "declare a removed node back: it is charged again",
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    deployment = subparsers.add_parser("deployment", help="pause, resume, pin or release a deployment, or restart it")
    actions = deployment.add_subparsers(title="actions", metavar="ACTION", required=True)
    for action, text in DEPLOYMENT_ACTIONS.items():
        parser = _action(actions, action, text, "deployment", "DEPLOYMENT")
        if action == "pin":
            parser.add_argument("replicas", nargs="+", metavar="POOL=N", help="for example prefill=2 decode=3")
        if action == "restart":
            add_restart(parser)
            continue
        parser.set_defaults(run=lambda args: asyncio.run(_deployment(args)))
    node = subparsers.add_parser("node", help="declare a node gone, or back")
    actions = node.add_subparsers(title="actions", metavar="ACTION", required=True)
    for action, text in NODE_ACTIONS.items():
        _action(actions, action, text, "node", "NODE").set_defaults(run=lambda args: asyncio.run(_node(args)))


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], action: str, text: str, name: str, shown: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(action, help=text, description=text)
    parser.add_argument(name, metavar=shown)
    add_bus_options(parser)
    parser.add_argument("--reason", default="", help="one sentence for the record")
    parser.add_argument("--force", action="store_true", help="also for a name that the bus does not know yet")
    parser.add_argument("--json", action="store_true", help="print the message that was published")
    parser.set_defaults(action=action)
    return parser


def replicas_of(words: list[str]) -> dict[str, int]:
    """``["prefill=2"]`` as ``{"prefill": 2}``. Raises UsageError for anything else."""
    found: dict[str, int] = {}
    for word in words:
        pool, _, count = word.partition("=")
        if not pool or not count.isdecimal():
            raise UsageError(f"{word!r} is not POOL=N with a whole number, such as prefill=2")
        if len(count) > MOST_DIGITS:
            raise UsageError(f"{word!r}: more replicas than any pool can have")
        found[pool] = int(count)
    return found


async def _deployment(args: argparse.Namespace) -> int:
    pinned = replicas_of(args.replicas) if args.action == "pin" else {}
    now, who = datetime.now(UTC), user_name()
    order = deployment_order(args.deployment, args.action, now, replicas=pinned, reason=args.reason, issued_by=who)
    return await _send(args, order)


async def _node(args: argparse.Namespace) -> int:
    from bus_schemas import v1

    order = command_of(
        v1.NodeControl,
        time=datetime.now(UTC),
        node=args.node,
        action=args.action,
        reason=args.reason,
        issued_by=user_name(),
    )
    return await _send(args, order)


async def _send(args: argparse.Namespace, order: v1.DeploymentControl | v1.NodeControl) -> int:
    from bus_schemas.visible_text import visible, visible_json
    from deploy.views.bus_reader import names

    async with reached(args) as bus:
        if not args.force:
            check(await names(bus), order)
        await store(bus, order)
    print(visible_json(order.model_dump_json()) if args.json else visible(sentence(order)))
    return 0
