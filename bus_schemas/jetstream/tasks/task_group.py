"""Runs the parts of a service that never end by themselves, so that none of them can end unnoticed.

``asyncio.TaskGroup`` counts a child that was cancelled or that returned as done: a loop that a library ended with a
cancellation of its own would stay missing. On Python 3.11, leaving a group while a child fails also leaves the parent's
cancellation count too high.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

AGAIN_S = 10.0
"""Seconds before a cancellation is repeated: longer than any part takes to stop in order."""
_log = logging.getLogger(__name__)


class PartEndedError(Exception):
    """A part that never ends has ended without an error."""


async def run_together(parts: Mapping[str, Coroutine[Any, Any, object]]) -> None:
    """Run ``parts`` by name until cancelled. When one ends, in whatever way, all others are cancelled.

    Raises the exception of the first that ended, or PartEndedError.
    """
    tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await ended(*tasks)
    errors = {task: None if task.cancelled() else task.exception() for task in tasks}
    first = min(done, key=lambda task: (errors[task] is None, tasks.index(task)))
    for task, error in errors.items():
        if error is not None and task is not first:
            _log.warning("%s failed as well: %r", task.get_name(), error)
    raise errors[first] or PartEndedError(f"{first.get_name()} ended by itself")


async def ended(*tasks: asyncio.Future[Any], again_s: float = AGAIN_S) -> None:
    """Cancel ``tasks`` and wait until they have ended. Exceptions that they raised are not raised here.

    The client library can lose a cancellation, so it is repeated every ``again_s`` seconds.
    """
    while waiting := [task for task in tasks if not task.done()]:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=again_s)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # Retrieved, so that asyncio does not log it.
