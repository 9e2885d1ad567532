"""Shows a run while it goes: a live panel in a terminal, a line every few seconds elsewhere, nothing with --json."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable

from bus_schemas import v1
from deploy.views.live_view import DemoStatus, panel, plain_line
from deploy.views.site_view import SiteView
from deploy.views.words import clock, sentence

REFRESH_S = 0.25
PLAIN_LINE_S = 5.0
PLAIN_POLL_S = 0.5


async def show(picture: SiteView, status: Callable[[], DemoStatus], *, quiet: bool) -> None:
    """Show the run until cancelled. With ``quiet`` only the hint is printed, on standard error."""
    run = status()
    if quiet:
        print(run.hint, file=sys.stderr)
        await asyncio.Event().wait()
    elif sys.stdout.isatty():
        await _live(picture, status)
    else:
        print(run.title)
        print(run.hint)
        await _plain(picture, status)


async def _live(picture: SiteView, status: Callable[[], DemoStatus]) -> None:
    from rich.console import Console
    from rich.live import Live

    with Live(panel(picture, status()), console=Console(), auto_refresh=False, screen=False) as live:
        while True:
            await asyncio.sleep(REFRESH_S)
            live.update(panel(picture, status()), refresh=True)


async def _plain(picture: SiteView, status: Callable[[], DemoStatus]) -> None:
    """Print a line every few seconds, and each scaling decision and acknowledgement as it arrives."""
    printed: v1.Message | None = None
    since_line_s = 0.0
    while True:
        await asyncio.sleep(PLAIN_POLL_S)
        since_line_s += PLAIN_POLL_S
        for message in _after(picture.history, printed):
            printed = message
            if "scaling" in message.type:
                print(f"    {clock(message)} {sentence(message)}")
        if since_line_s >= PLAIN_LINE_S:
            since_line_s = 0.0
            print(plain_line(picture, status()), flush=True)


def _after(history: Iterable[v1.Message], printed: v1.Message | None) -> list[v1.Message]:
    """The messages that came after ``printed``; all where it is no longer part of the history."""
    found = list(history)
    for position in range(len(found) - 1, -1, -1):
        if found[position] is printed:
            return found[position + 1 :]
    return found
