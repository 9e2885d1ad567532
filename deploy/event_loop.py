"""The event loop that every long-running command uses: uvloop where it is installed, asyncio's own elsewhere."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from bus_schemas.jetstream.tasks.task_group import ended

T = TypeVar("T")
ONCE_IN_S = 60.0
NO_MORE_FILES = "socket.accept() out of system resource"


def run(work: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.run``: the result of ``work``, or its error."""
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        limit_repeats(runner.get_loop())
        return runner.run(work)


async def until_signal(work: Coroutine[Any, Any, object]) -> None:
    """Run ``work`` until it ends, or until SIGINT or SIGTERM: then it is cancelled, and has ended on return.

    Raises what ``work`` raised, also while it ended.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await ended(working, stopping)
    if not (stop.is_set() and working.cancelled()):
        working.result()


def limit_repeats(loop: asyncio.AbstractEventLoop) -> None:
    """Log once a minute, not a hundred times a second, that the limit of open files prevents new connections."""
    quiet_until_s = float("-inf")

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal quiet_until_s
        if context.get("message") == NO_MORE_FILES:
            if loop.time() < quiet_until_s:
                return
            quiet_until_s = loop.time() + ONCE_IN_S
        loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
