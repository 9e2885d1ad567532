"""Makes a cancellation that something below swallowed count after all.

Client libraries and task groups can turn a cancellation into the error that came with it: a loop that answers errors
by trying again would then never end. It asks here before it does.
"""

from __future__ import annotations

import asyncio


def heed_cancellation() -> None:
    """Raises CancelledError when this task was asked to end and has not been told that it need not."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
