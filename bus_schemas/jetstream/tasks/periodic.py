"""Runs a coroutine now, after each reconnect, and periodically."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from bus_schemas.errors import BusAwayError, NotStoredError, ProvisionRefusedError
from bus_schemas.jetstream.connect import Bus

RETRY_S = 1.0
"""Pause after a failed round. Consumers can only be created once a lost stream is back, so it is short."""
_log = logging.getLogger(__name__)


async def run_periodically(bus: Bus, what: str, work: Callable[[], Awaitable[None]], every_s: float) -> None:
    """Run ``work`` every ``every_s`` seconds and after each reconnect, until cancelled. It must be idempotent.

    A round that raises a BusError of the server's side is logged, with ``what`` as its name, and repeated soon.
    """
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
                _log.warning("%s: this round failed, the next follows soon: %s", what, error)
                wait_s = min(RETRY_S, every_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await wake.wait()
    finally:
        bus.on_reconnect.discard(wake.set)
