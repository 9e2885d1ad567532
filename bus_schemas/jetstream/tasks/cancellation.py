"""Keeps a cancellation from getting lost inside the client library.

``asyncio.wait_for`` of Python 3.11, with which nats-py waits, swallows a cancellation that arrives in the same instant
as the result or the error: a loop around it would then run forever. And where two tasks of nats-py await one future,
cancelling one of them cancels the other: a loop around that would end unnoticed. So every wait through nats-py is made
inside this context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cancellation_kept() -> Iterator[None]:
    """Raises CancelledError on leaving, also in place of an error, where a cancellation was swallowed inside.

    Raises ConnectionAbortedError for a cancellation that was not requested of this task.
    """
    before = cancellations()
    try:
        yield
    except asyncio.CancelledError as error:
        if cancellations():
            raise
        raise ConnectionAbortedError("the client library gave up the call") from error
    except Exception as error:
        if cancellations() > before:
            raise asyncio.CancelledError from error
        raise
    if cancellations() > before:
        raise asyncio.CancelledError


def cancellations() -> int:
    """How many cancellations of the current task have been requested and not withdrawn; 0 outside a task."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
