"""`wattscale top`: the dashboard's picture in a terminal, read-only."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import os
import signal
import sys

from bus_schemas.jetstream.tasks.task_group import ended
from deploy.cli.bus_address import add_bus_options
from deploy.cli.bus_connection import reached
from deploy.cli.errors import CliError, UsageError
from deploy.collector import collect_seldom
from deploy.event_loop import run as on_event_loop

TABS = ("pools", "budget", "GPUs", "decisions", "agents")
EXTRA = "this command needs the package textual: pip install 'wattscale[top]'"
ELSEWHERE = "use `wattscale status` or `wattscale decisions`"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "top",
        help="a running site in a terminal, live and read-only",
        description="Shows pools, budget, GPUs, decisions and agents of a running bus as tables that follow it; keys "
        "sort (s) and filter (/) them, and explain a row (Enter). It changes nothing and needs no more than an "
        "observer's login. It is made for terminals from 80 columns and 24 rows on, needs the extra `top`, and uses no "
        "colours where NO_COLOR is set.",
    )
    add_bus_options(parser)
    parser.add_argument("--tab", choices=TABS, default=TABS[0], help="the table to begin with (default: %(default)s)")
    parser.add_argument("--filter", default="", metavar="WORDS", help="show only its rows that contain these words")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("textual") is None:
        raise UsageError(EXTRA)
    _check_terminal()
    return on_event_loop(_show(args))


def _check_terminal() -> None:
    """Raise UsageError where there is no terminal that can show tables and send keys."""
    streams = {"standard input": sys.stdin, "standard output": sys.stdout, "standard error": sys.stderr}
    for name, stream in streams.items():
        if not stream.isatty():
            raise UsageError(f"top needs a terminal, and {name} is none; {ELSEWHERE}")
    if os.environ.get("TERM") == "dumb":
        raise UsageError(f"top needs a terminal that moves its cursor, and TERM is dumb; {ELSEWHERE}")


async def _show(args: argparse.Namespace) -> int:
    from deploy.dashboard.feed import Feed
    from deploy.top.live_source import LiveSource
    from deploy.top.top_app import TopApp

    # A line of a log would stand across the tables; trouble with the bus is shown above them.
    logging.basicConfig(handlers=[logging.NullHandler()])
    collect_seldom()  # the rows of a large site are made anew every second
    async with reached(args) as bus:
        feed = Feed(bus)
        app = TopApp(LiveSource(feed), tab=args.tab, wanted=args.filter)
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, app.exit)
        following = asyncio.create_task(feed.run())
        try:
            await app.run_async()
        finally:
            await ended(following)
        if following.done() and not following.cancelled():
            following.result()
    if app.return_code:
        raise CliError("the tables ended with the error above")
    return 0
