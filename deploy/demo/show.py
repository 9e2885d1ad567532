"""Shows a run while it goes: a live panel in a terminal, a line every few seconds elsewhere, nothing with --json."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

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
    printed = 0
    since_line_s = 0.0
    while True:
        await asyncio.sleep(PLAIN_POLL_S)
        since_line_s += PLAIN_POLL_S
        news = [message for message in picture.history if "scaling" in message.type]
        total = sum(view.decision_id + 1 for view in picture.deployments.values())
        for message in news[-(total - printed) :] if total > printed else []:
            print(f"    {clock(message)} {sentence(message)}")
        printed = total
        if since_line_s >= PLAIN_LINE_S:
            since_line_s = 0.0
            print(plain_line(picture, status()), flush=True)
