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
    before = _cancelling()
    try:
        yield
    except asyncio.CancelledError as error:
        if _cancelling():
            raise
        raise ConnectionAbortedError("the client library gave up the call") from error
    except Exception as error:
        if _cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if _cancelling() > before:
        raise asyncio.CancelledError


def _cancelling() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
