"""Shows a run while it goes: a live panel in a terminal, a line every few seconds elsewhere, nothing with --json."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from bus_schemas import v1
from deploy.views.live_view import DemoStatus, plain_line
from deploy.views.site_view import SiteView
from deploy.views.terminal_view import panel
from deploy.views.words import clock, sentence

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_S = 0.25
PLAIN_LINE_S = 5.0
PLAIN_POLL_S = 0.5
MOST_WAITING = 100
Scaling = v1.ScalingDecision | v1.ScalingAck


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

    console = Console()

    def frame() -> RenderableType:
        # One row less than there are: the cursor stands below, and a full screen would scroll.
        return panel(picture, status(), console.width, console.height - 1)

    with Live(frame(), console=console, auto_refresh=False, screen=False) as live:
        while True:
            await asyncio.sleep(REFRESH_S)
            live.update(frame(), refresh=True)


async def _plain(picture: SiteView, status: Callable[[], DemoStatus]) -> None:
    """Print a line every few seconds, and each scaling decision and acknowledgement as it arrives."""
    log = ScalingLog()
    since_line_s = 0.0
    while True:
        await asyncio.sleep(PLAIN_POLL_S)
        since_line_s += PLAIN_POLL_S
        for message in log.new(picture.scaling):
            print(f"    {clock(message)} {sentence(message)}")
        if since_line_s >= PLAIN_LINE_S:
            since_line_s = 0.0
            print(plain_line(picture, status()), flush=True)


class ScalingLog:
    """What is new about replicas, each message once, and no answer before its decision.

    Decisions and answers arrive on streams of their own, in any order.
    """

    def __init__(self) -> None:
        self._last: Scaling | None = None
        self._shown: dict[str, int] = {}
        """The newest decision shown, by deployment."""
        self._waiting: list[v1.ScalingAck] = []

    def new(self, history: Iterable[Scaling]) -> list[Scaling]:
        """The messages that came since the last call, as they should be shown."""
        found: list[Scaling] = []
        for message in self._after(history):
            self._last = message
            if isinstance(message, v1.ScalingAck):
                self._waiting.append(message)
            else:
                found.append(message)
                self._shown[message.deployment] = max(message.decision_id, self._shown.get(message.deployment, -1))
            due = [ack for ack in self._waiting if ack.decision_id <= self._shown.get(ack.deployment, -1)]
            self._waiting = [ack for ack in self._waiting if ack not in due][-MOST_WAITING:]
            found += due
        return found

    def _after(self, history: Iterable[Scaling]) -> list[Scaling]:
        """All messages where the last one is no longer part of the history."""
        found = list(history)
        for position in range(len(found) - 1, -1, -1):
            if found[position] is self._last:
                return found[position + 1 :]
        return found
