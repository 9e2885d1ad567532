"""Keeps a cancellation from getting lost inside the client library.

``asyncio.wait_for`` of Python 3.11, which nats-py waits with, swallows a cancellation that arrives in the instant in
which the answer does, be it a good one or a refusal: a loop around it would then run for ever. And where nats-py waits
for one thing in two of its tasks, a cancellation of the one is one of the other: a loop around that would end, and
nobody would know. Whoever waits through nats-py does so inside this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cancellation_kept() -> Iterator[None]:
    """Raises CancelledError on the way out, also instead of an error, when the task was cancelled inside unnoticed.

    Raises ConnectionAbortedError for a cancellation that nobody asked this task for.
    """
    before = _cancelling()
    try:
        yield
    except asyncio.CancelledError as error:
        if _cancelling():
            raise
        raise ConnectionAbortedError("the client gave the call up") from error
    except Exception as error:
        if _cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if _cancelling() > before:
        raise asyncio.CancelledError


def _cancelling() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
