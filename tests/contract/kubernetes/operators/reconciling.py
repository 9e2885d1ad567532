"""What the operators of the tests have in common: watches, one loop, and pods that go with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agent.adapters.kubernetes.api import ApiError
from agent.adapters.kubernetes.list_watch import ListWatch, WatchTiming
from tests.contract.kubernetes.api_server import ApiServer
from tests.contract.kubernetes.operators.operated_pods import Item, OperatedPods

FAST = WatchTiming(watch_s=60, silence_s=30.0, first_pause_s=0.05, longest_pause_s=0.5)
PASSING = (0, 404, 409, 429, 500, 503)
"""A conflict, or a server that is away: the next try reads everything anew."""


def watched(server: ApiServer, path: str, selector: Mapping[str, str] | None = None) -> ListWatch[Item]:
    """A watch of whole objects, which asks again soon."""
    return ListWatch[Item](server.api, path, dict, selector=selector, timing=FAST)


async def again_after(error: ApiError) -> None:
    """Wait a moment before the next try. Raises an error that would not pass."""
    if error.status not in PASSING:
        raise error
    await asyncio.sleep(0.05)


@asynccontextmanager
async def reconciling(
    watches: Sequence[ListWatch[Item]], loop: Coroutine[Any, Any, None], pods: Iterable[OperatedPods]
) -> AsyncIterator[None]:
    """Run watches and loop until the block ends; then the pods are deleted. Raises what ended one of them."""
    tasks = [asyncio.create_task(part) for part in (*(watch.run() for watch in watches), loop)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for one in pods:
            await one.clear()
    for error in ended:
        if isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError):
            raise error
