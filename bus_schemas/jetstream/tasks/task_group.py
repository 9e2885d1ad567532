"""Runs the parts of a service that never end by themselves, so that none of them can end unnoticed.

``asyncio.TaskGroup`` takes a child that ends as cancelled, or that returns, for one that is done: a loop that a library
ended with a cancellation of its own would be missing for ever. And on Python 3.11 a group that is left while a child
fails keeps the parent's cancellation count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

AGAIN_S = 10.0
"""Longer than any part takes to leave in order."""
_log = logging.getLogger(__name__)


class PartEndedError(Exception):
    """A part that never ends has ended without an error."""


async def run_together(parts: Mapping[str, Coroutine[Any, Any, object]]) -> None:
    """Run ``parts`` by name until cancelled. The first that ends, however it does, ends all.

    Raises what that one raised, or PartEndedError.
    """
    tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    errors = {task: None if task.cancelled() else task.exception() for task in tasks}
    first = min(done, key=lambda task: (errors[task] is None, tasks.index(task)))
    for task, error in errors.items():
        if error is not None and task is not first:
            _log.warning("%s failed as well: %r", task.get_name(), error)
    raise errors[first] or PartEndedError(f"{first.get_name()} ended by itself")


async def ended(*tasks: asyncio.Future[Any], again_s: float = AGAIN_S) -> None:
    """Cancel ``tasks`` and wait until they have ended; what they raised is theirs to tell.

    A client library can lose a cancellation, so it is repeated now and then until it counts.
    """
    while waiting := [task for task in tasks if not task.done()]:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=again_s)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # Marked as seen.
