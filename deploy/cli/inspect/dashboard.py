"""`wattscale dashboard`: the page of a running bus, read-only unless it is given tokens."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bus_schemas.jetstream.tasks.task_group import ended
from deploy.cli.bus_address import add_bus_options
from deploy.cli.bus_connection import reached
from deploy.cli.errors import CliError, UsageError
from deploy.cli.numbers import whole
from deploy.collector import collect_seldom
from deploy.event_loop import run as on_event_loop
from deploy.event_loop import until_signal

if TYPE_CHECKING:
    from deploy.dashboard.page_server import DashboardServer
    from deploy.dashboard.steer_tokens import SteerTokens

PORT = 9095


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "dashboard",
        help="a web page of a running site; read-only without tokens",
        description="Serves a page that shows load, replicas, latency, watts, decisions with their reasons, and every "
        "GPU of a running bus. It changes nothing and needs no more than an observer's login, unless "
        "--steer-token-file lets the holders of tokens steer, which needs an operator's. Whoever reaches the address "
        "sees the site: put a proxy with a login in front of any address but the loopback's.",
    )
    add_bus_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=whole(0, 65_535), default=PORT, help="port to listen on; 0: a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--path-prefix", default="", metavar="PATH", help="where the page begins, behind a proxy that keeps the path"
    )
    parser.add_argument(
        "--host-name",
        dest="host_names",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which a proxy asks for the page, where it listens on the loopback; may be repeated",
    )
    parser.add_argument(
        "--steer-token-file",
        metavar="FILE",
        help="let the page pause, resume, pin and unpin deployments and set and release budgets; lines of NAME TOKEN, "
        "and each command is recorded under its token's name",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from planner.runtime.config.settings import LOOPBACK
    from planner.runtime.config.url_path import path_of

    try:
        path_of(args.path_prefix)
    except ValueError as error:
        raise UsageError(f"--path-prefix: {error}") from error
    if args.steer_token_file and args.host not in LOOPBACK:
        raise UsageError(
            f"--steer-token-file: tokens would cross the network unencrypted to {args.host}; listen on 127.0.0.1, and "
            "put a proxy with TLS in front (--host-name)"
        )
    tokens = _tokens(args)
    try:
        on_event_loop(until_signal(_serve(args, tokens)))
    except OSError as error:
        raise CliError(
            f"cannot listen on {args.host} port {args.port}: {error.strerror or error}; use --port"
        ) from error
    return 0


def _tokens(args: argparse.Namespace) -> SteerTokens | None:
    from deploy.dashboard.steer_tokens import SteerTokenError, read

    try:
        return read(Path(args.steer_token_file)) if args.steer_token_file else None
    except SteerTokenError as error:
        raise UsageError(f"--steer-token-file {error}") from error


async def _serve(args: argparse.Namespace, tokens: SteerTokens | None) -> None:
    from bus_schemas.visible_text import visible_handler
    from deploy.dashboard.feed import Feed
    from deploy.dashboard.page_server import DashboardServer
    from deploy.dashboard.steering import Steering, log_commands

    logging.basicConfig(level=logging.WARNING, handlers=[visible_handler("%(levelname)s %(name)s: %(message)s")])
    log_commands()
    collect_seldom()
    async with reached(args) as bus:
        page = DashboardServer(
            Feed(bus),
            host=args.host,
            port=args.port,
            path_prefix=args.path_prefix,
            host_names=args.host_names,
            steering=None if tokens is None else Steering(bus, tokens, args.host_names),
        )
        announcing = asyncio.create_task(_announce(page))
        try:
            await page.run()
        finally:
            await ended(announcing)


async def _announce(page: DashboardServer) -> None:
    await page.serving.wait()
    print(f"dashboard on {page.url}")
    sys.stdout.flush()
