"""One alarm clock for the decision loop: at once, after a short gathering time, or at an instant."""

from __future__ import annotations

import asyncio


class Wakeup:
    """``now`` rings at once; ``soon`` rings ``gather_s`` later, so that a burst of telemetry costs one decision."""

    def __init__(self, gather_s: float = 0.1) -> None:
        self._event = asyncio.Event()
        self._gather_s = gather_s
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> None:
        """Ring at once: something must be answered."""
        self._event.set()

    def soon(self) -> None:
        """Ring after the gathering time, together with what comes next. Must be called on the event loop."""
        if self._timer is None and not self._event.is_set():
            self._timer = asyncio.get_running_loop().call_later(self._gather_s, self._event.set)

    async def wait(self, timeout_s: float) -> None:
        """Wait until it rings or ``timeout_s`` seconds have passed, and reset it."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
