"""Work that is looked after again and again: at once, after each reconnect, and every so often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from bus_schemas.errors import BusAwayError, NotStoredError, ProvisionRefusedError
from bus_schemas.jetstream.connect import Bus

RETRY_S = 1.0
"""After a round that failed. A lost stream is made again within this, and its consumers can be made only after it."""
_log = logging.getLogger(__name__)


async def run_periodically(bus: Bus, what: str, work: Callable[[], Awaitable[None]], every_s: float) -> None:
    """Do ``work``, which must be idempotent, until cancelled. ``what`` names it in the log where a round fails."""
    wake = asyncio.Event()
    bus.on_reconnect.add(wake.set)
    try:
        while True:
            wake.clear()
            wait_s = every_s
            try:
                await bus.ready()
                await work()
            except (BusAwayError, NotStoredError, ProvisionRefusedError) as error:
                _log.warning("%s could not be looked after: %s", what, error)
                wait_s = min(RETRY_S, every_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await wake.wait()
    finally:
        bus.on_reconnect.discard(wake.set)
